"""Rates: no sixty seconds ever have more than the limit, and nobody is refused where there is room."""

import math
from random import Random

import pytest

from meter.core.limits import Limits
from meter.core.rates import (
    STEP_SECONDS,
    WINDOW_SECONDS,
    Asked,
    Counters,
    Rate,
    Standing,
    Window,
    Windows,
    duration,
    rates_of,
    refusal,
    weigh,
)

KEY = Rate("key", "k", "requests", 10)
TOKENS = Rate("key", "k", "tokens", 1000)


@pytest.mark.parametrize("seed", range(20))
def test_a_window_is_any_sixty_seconds(seed: int) -> None:
    """Against a list of everything that passed: never over the limit, never blocked but by the last step."""
    random = Random(seed)
    rate = Rate("key", "k", "tokens", random.choice([1, 7, 100]))
    windows, now = Windows(), 1000.0
    passed: list[tuple[float, int]] = []
    for _ in range(1500):
        now += random.choice([0.0, 0.001, 0.1, STEP_SECONDS, 1.0, 7.3, 61.0]) * random.random()
        amount = random.randint(1, max(1, rate.limit // 3))

        refused = windows.refused([Asked(rate, amount)], now) is not None

        counted = sum(each for at, each in passed if at + WINDOW_SECONDS > now)
        counted_longer = sum(each for at, each in passed if at + WINDOW_SECONDS + STEP_SECONDS > now)
        assert refused or counted + amount <= rate.limit
        assert not refused or counted_longer + amount > rate.limit
        if not refused:
            windows.add(rate, amount, now)
            passed.append((now, amount))


@pytest.mark.parametrize("seed", range(10))
def test_there_is_room_when_the_standing_says_so(seed: int) -> None:
    """Whoever waits as long as it says gets in, and is refused just before."""
    random = Random(seed)
    window, now, limit = Window(), 50.0, 100
    for _ in range(60):
        now += 3 * random.random()
        window.add(random.randint(0, 20), now)
    amount = random.randint(1, limit)

    standing = window.standing(amount, limit, now)

    later = now + standing.room_seconds
    if standing.room_seconds:
        assert window.used(later - 1e-6) + amount > limit
    assert window.used(later + 1e-9) + amount <= limit
    assert window.used(now + standing.reset_seconds + 1e-9) == 0


def test_a_window_takes_little_memory_at_any_rate() -> None:
    """What comes within a step is one entry, so that a million hits are a few hundred numbers."""
    window = Window()
    for number in range(100_000):
        window.add(1, number / 1000)

    assert len(window._entries) <= WINDOW_SECONDS / STEP_SECONDS + 1  # noqa: SLF001 (what it is made of is the point)
    assert window.used(100.0) >= WINDOW_SECONDS * 1000 - 1


def test_what_is_taken_back_counts_no_more() -> None:
    """It goes out of the entry that it was in, and what has run out anyway is not taken back twice."""
    windows = Windows()
    first = windows.add(TOKENS, 600, 0.0)
    windows.add(TOKENS, 300, 30.0)

    windows.take_back(TOKENS, 500, first, 31.0)
    before = windows.standing(Asked(TOKENS, 0), 31.0).used
    windows.take_back(TOKENS, 100, first, 61.0)
    after = windows.standing(Asked(TOKENS, 0), 61.0).used

    assert (before, after) == (400, 300)


def test_what_is_owed_counts_beyond_the_limit() -> None:
    """More used than there was room for keeps the next ones out until it has run out."""
    windows = Windows()
    windows.add(TOKENS, 5000, 0.0)

    refused = windows.refused([Asked(KEY, 1), Asked(TOKENS, 1)], 59.9)

    assert refused == Asked(TOKENS, 1)
    assert windows.refused([Asked(TOKENS, 1000)], 60.0) is None


def test_idle_windows_are_dropped() -> None:
    """Keys that come and go leave nothing behind."""
    windows = Windows()
    for number in range(10_000):
        windows.add(Rate("key", str(number), "requests", 10), 1, number * 0.1)

    assert len(windows) <= 2 * WINDOW_SECONDS / 0.1


@pytest.mark.parametrize(
    ("counters", "amount", "expected"),
    [
        (Counters(0, 0, 0, 0), 1, Standing(0, 0, 0)),
        (Counters(0, 0, 9, 90), 1, Standing(9, 90, 0)),
        (Counters(0, 0, 10, 90), 1, Standing(10, 90, 30.001)),
        (Counters(0, 0, 20, 90), 1, Standing(20, 90, 60.001)),
        (Counters(10, 30, 5, 90), 1, Standing(10, 90, 0.001)),
        (Counters(12, 30, 5, 90), 1, Standing(11, 90, 5.001)),
        (Counters(10, 30, 0, 0), 6, Standing(5, 30, 0.001)),
        (Counters(10, 30, 5, 90), 10, Standing(10, 90, 78.001)),
        (Counters(0, 0, -3, 100), 1, Standing(0, 100, 0)),
    ],
)
def test_two_counters_are_weighed(counters: Counters, amount: int, expected: Standing) -> None:
    """The last minute counts by what is left of it, and the wait is until enough of it has gone."""
    assert weigh(counters, amount, 10) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_redis_has_room_when_the_standing_says_so(seed: int) -> None:
    """Counters as `limits` shifts and weighs them: whoever waits gets in, and not much before."""
    random = Random(seed)
    limit, amount = random.randint(1, 50), 1
    previous_seconds = random.uniform(1, 59)
    previous, current = random.randint(0, limit), random.randint(0, 2 * limit)
    counters = Counters(previous, previous_seconds, current, previous_seconds + WINDOW_SECONDS)

    def used(after: float) -> int:
        previous, seconds, current, _ = counters
        if after > seconds:
            previous, seconds, current = current, seconds + WINDOW_SECONDS, 0
        return math.floor(previous * max(0.0, seconds - after) / WINDOW_SECONDS) + current

    room_seconds = weigh(counters, amount, limit).room_seconds

    assert used(room_seconds) + amount <= limit
    assert not room_seconds or used(max(0.0, room_seconds - 0.01)) + amount > limit


def test_what_limits_set_is_rates() -> None:
    """No limit and one of 0 are no rates."""
    assert rates_of("team", "t", Limits(rpm=0)) == []
    assert rates_of("team", "t", Limits(rpm=3, tpm=4)) == [
        Rate("team", "t", "requests", 3),
        Rate("team", "t", "tokens", 4),
    ]


def test_a_refusal_says_which_limit_and_when_to_try_again() -> None:
    """Headers are those of OpenAI, of both rates of the owner; the wait is in whole seconds."""
    standings = {KEY: Standing(4, 59.2, 0), TOKENS: Standing(950, 61, 12.1)}

    refused = refusal(Asked(TOKENS, 200), standings)

    assert refused.message == (
        "The limit of this key is 1000 tokens a minute; 950 are used, and this request needs 200. "
        "Try again in 13 s."
    )
    assert refused.headers == (
        ("retry-after", "13"),
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "6"),
        ("x-ratelimit-reset-requests", "1m0s"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "50"),
        ("x-ratelimit-reset-tokens", "1m1s"),
    )


def test_what_can_never_pass_is_said_to_be_so() -> None:
    """A request larger than the whole limit is not told to try again."""
    refused = refusal(Asked(TOKENS, 1001), {TOKENS: Standing(0, 0, 0)})

    assert "can never pass" in refused.message
    assert ("x-should-retry", "false") in refused.headers
    assert "retry-after" not in dict(refused.headers)


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0s"), (0.1, "1s"), (59.5, "1m0s"), (1, "1s"), (360, "6m0s"), (61, "1m1s")]
)
def test_a_duration_is_written_as_openai_does(seconds: float, written: str) -> None:
    """Whole seconds, rounded up."""
    assert duration(seconds) == written
    assert math.ceil(seconds) >= seconds
