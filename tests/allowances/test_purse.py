"""What a process keeps of a window, what it asks for ahead, and what goes back."""

from datetime import UTC, datetime

from meter.allowances.purse import AHEAD_SECONDS, IDLE_SECONDS, Purse
from meter.core.allowances import PLENTY, Share
from meter.core.budgets import Span
from tests.store.test_budgets import budget

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SPAN = Span(NOW, None)


def purse(held: int, room: int, *, need: int = 10, times: int = 1) -> Purse:
    """Make a purse that has had some requests, a tenth of a second apart, the last at second 0."""
    made = Purse(budget(), SPAN)
    made.learn(Share("b", NOW, 1, held, room), 1)
    for number in range(times):
        made.promise(need, -0.1 * (times - 1 - number))
        made.release(need)
    return made


def test_where_there_is_room_for_few_everything_goes_back() -> None:
    """Near the limit nothing that is not promised is kept, however busy its process is."""
    found = purse(held=500, room=PLENTY * 10 - 1, times=20)

    assert found.scarce
    assert found.idle(0.0) == 500
    assert found.wanted(0.0) == 0


def test_where_there_is_plenty_what_will_be_needed_is_kept() -> None:
    """Twice what comes in two seconds stays; the rest of a burst goes back while requests go on."""
    found = purse(held=10_000, room=10**6, times=100)
    wanted = found.wanted(0.0)

    assert 100 * AHEAD_SECONDS * 0.5 < wanted <= 110 * AHEAD_SECONDS
    assert found.idle(0.0) == 10_000 - 2 * wanted


def test_what_nobody_asks_for_goes_back() -> None:
    """After two seconds without a request everything goes, and nothing is asked for."""
    found = purse(held=100, room=10**6, times=10)

    assert found.idle(IDLE_SECONDS) == 100
    assert not found.low(IDLE_SECONDS)


def test_a_window_that_has_ended_is_not_filled_again() -> None:
    """Where requests were frequent until the window's end, nothing more is reserved of it."""
    found = purse(held=0, room=10**6, times=100)

    assert found.low(0.0)
    assert not found.low(IDLE_SECONDS)


def test_a_large_need_is_remembered() -> None:
    """A small request does not make it look as if there were room for many of the large ones."""
    found = purse(held=0, room=PLENTY * 10, need=1000)

    found.promise(1, 0.5)
    found.promise(0, 0.5)

    assert found.scarce


def test_older_news_does_not_count() -> None:
    """What the database said in an earlier turn, and was heard later, changes nothing."""
    found = purse(held=100, room=50)

    found.learn(None, 1)
    assert found.held == 100
    found.learn(None, 2)
    assert (found.held, found.room) == (0, 0)
