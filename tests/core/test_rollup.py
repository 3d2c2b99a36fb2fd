"""Events add up to the same lines in any order and any portions."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.rollup import LineKey, Sums, fold

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
counts = st.integers(0, 10**9)
costs = st.none() | st.integers(0, 10**18)


def make(*, at: datetime = NOON, **fields: object) -> UsageEvent:
    """Make an event, of one key unless told otherwise."""
    values: dict[str, object] = {
        "event_id": "019ab1c2-0000-7000-8000-000000000000",
        "started_at": at,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "upstream",
        "model_requested": "model",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


events = st.builds(
    make,
    at=st.integers(0, 7200).map(lambda seconds: NOON + timedelta(seconds=seconds)),
    team_id=st.sampled_from(["t1", "t2"]),
    key_id=st.sampled_from(["k1", "k2"]),
    upstream=st.sampled_from(["u1", "u2"]),
    model_requested=st.sampled_from(["m1", "m2"]),
    model_served=st.sampled_from([None, "m1", "m3"]),
    outcome=st.sampled_from(Outcome),
    usage_source=st.sampled_from(UsageSource),
    prompt_tokens=counts,
    completion_tokens=counts,
    cached_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    cost=costs,
    upstream_cost=costs,
)


def plus(folded: Iterable[dict[LineKey, Sums]]) -> dict[LineKey, Sums]:
    """Add foldings up, as the database does with the lines that it has."""
    added: dict[LineKey, Sums] = {}
    for lines in folded:
        for key, line in lines.items():
            added[key] = added.get(key, Sums()).plus(line)
    return added


@given(st.lists(events, max_size=30), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(drawn: list[UsageEvent], random: Random) -> None:
    """Events fold to the same lines in any order."""
    shuffled = list(drawn)
    random.shuffle(shuffled)

    assert fold(shuffled) == fold(drawn)


@given(st.lists(st.lists(events, max_size=8), max_size=8))
def test_the_portions_do_not_matter(batches: list[list[UsageEvent]]) -> None:
    """Events fold to the same lines at once and batch by batch."""
    together = fold(event for batch in batches for event in batch)

    assert plus(fold(batch) for batch in batches) == together


@given(st.lists(events, max_size=30))
def test_the_lines_sum_up_to_the_events(drawn: list[UsageEvent]) -> None:
    """Nothing is lost and nothing is counted twice, whatever lines there are."""
    lines = fold(drawn).values()

    assert sum(line.requests for line in lines) == len(drawn)
    assert sum(line.errors for line in lines) == sum(event.failed for event in drawn)
    for name in (
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
    ):
        assert sum(getattr(line, name) for line in lines) == sum(getattr(event, name) for event in drawn)
    assert sum(line.cost for line in lines) == sum(event.cost or 0 for event in drawn)
    assert sum(line.upstream_cost for line in lines) == sum(event.upstream_cost or 0 for event in drawn)
    unpriced = [event for event in drawn if event.cost is None]
    assert sum(line.unpriced_requests for line in lines) == len(unpriced)
    assert sum(line.unpriced_tokens for line in lines) == sum(event.total_tokens for event in unpriced)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            make(
                prompt_tokens=10,
                completion_tokens=5,
                cached_tokens=4,
                cache_write_tokens=2,
                reasoning_tokens=3,
                cost=70,
                upstream_cost=80,
            ),
            Sums(
                requests=1,
                prompt_tokens=10,
                completion_tokens=5,
                cached_tokens=4,
                cache_write_tokens=2,
                reasoning_tokens=3,
                cost=70,
                upstream_cost=80,
                compared_cost=70,
                compared_upstream_cost=80,
            ),
        ),
        # Free is not unpriced.
        (make(prompt_tokens=1, cost=0), Sums(requests=1, prompt_tokens=1)),
        (
            make(prompt_tokens=1, completion_tokens=1),
            Sums(requests=1, prompt_tokens=1, completion_tokens=1, unpriced_requests=1, unpriced_tokens=2),
        ),
        (
            make(
                prompt_tokens=3,
                completion_tokens=4,
                cost=1,
                usage_source=UsageSource.ESTIMATED,
                outcome=Outcome.CLIENT_CLOSED,
            ),
            Sums(
                requests=1,
                prompt_tokens=3,
                completion_tokens=4,
                cost=1,
                estimated_requests=1,
                estimated_tokens=7,
            ),
        ),
        (
            make(prompt_tokens=3, completion_tokens=4, cost=1, usage_source=UsageSource.INVALID),
            Sums(
                requests=1, prompt_tokens=3, completion_tokens=4, cost=1, invalid_requests=1, invalid_tokens=7
            ),
        ),
        (
            make(cost=0, usage_source=UsageSource.NONE, outcome=Outcome.UPSTREAM_ERROR, status=429),
            Sums(requests=1, errors=1),
        ),
        # What only one side knows is not compared.
        (
            make(upstream_cost=80),
            Sums(requests=1, upstream_cost=80, unpriced_requests=1),
        ),
        # A correction is no attempt: it changes the cost, and what was unpriced is no longer.
        (make(corrects_id="one", cost=-5), Sums(cost=-5)),
        (
            make(corrects_id="one", cost=70, priced_tokens=12, upstream_cost=80),
            Sums(
                cost=70,
                unpriced_requests=-1,
                unpriced_tokens=-12,
                compared_cost=70,
                compared_upstream_cost=80,
            ),
        ),
        # Both of them show where they come from in the month in which they are counted.
        (
            make(corrects_id="one", cost=-5, counted_at=NOON),
            Sums(cost=-5, corrections=1, correction_cost=-5),
        ),
        (
            make(prompt_tokens=1, cost=7, counted_at=NOON),
            Sums(requests=1, prompt_tokens=1, cost=7, corrections=1, correction_cost=7),
        ),
    ],
)
def test_what_one_event_counts_for(event: UsageEvent, expected: Sums) -> None:
    """One event makes one line with its own numbers; what is not reported is counted beside."""
    assert list(fold([event]).values()) == [expected]


def test_a_line_is_a_quarter_hour_of_one_combination() -> None:
    """Another quarter, team, key, upstream or model is another line; the served model counts."""
    last = NOON + timedelta(minutes=14, seconds=59)
    drawn = [
        make(),
        make(at=last),
        make(at=NOON + timedelta(minutes=15)),
        make(team_id="other"),
        make(key_id="other"),
        make(upstream="other"),
        make(model_served="other"),
        make(model_requested="alias", model_served="model"),
    ]

    lines = fold(drawn)

    key = LineKey(NOON, "team", "key", "upstream", "model")
    assert lines[key].requests == 3
    assert len(lines) == 6
    assert lines[LineKey(NOON, "team", "key", "upstream", "other")].requests == 1


def test_nothing_folds_to_nothing() -> None:
    """No events make no lines."""
    assert fold([]) == {}
