"""Tests for `meter.app.made_up`."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from meter.app.made_up import EXPERIMENT, HABITS, HOUSE_MODEL, Holder, history, refusals
from meter.core.events import Outcome, UsageEvent, UsageSource

SINCE = datetime(2026, 10, 26, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=30)
HOLDERS = {habit.key: Holder(habit.team, habit.key) for habit in HABITS}


def month(seed: int = 1, until: datetime = UNTIL) -> list[UsageEvent]:
    """Make a month up."""
    return list(history(HOLDERS, SINCE, until, Random(seed)))


@pytest.fixture(scope="module")
def events() -> list[UsageEvent]:
    """Give a month."""
    return month()


def test_the_same_seed_makes_the_same_month(events: list[UsageEvent]) -> None:
    """A seed decides everything but where the month ends; another one makes another month."""
    earlier = SINCE + timedelta(days=3, hours=7, minutes=20)
    past = [event for event in events if event.started_at < earlier]

    assert month(until=earlier) == past
    assert month(seed=2, until=earlier) != past
    assert refusals(SINCE, UNTIL, Random(1)) == refusals(SINCE, UNTIL, Random(1))


def test_the_month_is_believable(events: list[UsageEvent]) -> None:
    """Work days are busier than weekends, batches run by night, and some of everything happens."""
    days = Counter(event.started_at.weekday() for event in events if event.key_id == "chat-assistant")
    hours = {event.started_at.hour for event in events if event.key_id == "nightly-batch"}

    assert min(days[day] for day in range(5)) > 2 * max(days[5], days[6])
    assert hours <= {0, 1, 2, 3, 4, 23}
    assert len({event.event_id for event in events}) == len(events) > 5_000
    assert {event.outcome for event in events} >= {Outcome.OK, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_CLOSED}
    assert {event.usage_source for event in events} == {
        UsageSource.REPORTED,
        UsageSource.ESTIMATED,
        UsageSource.NONE,
    }
    assert {event.model for event in events} > {HOUSE_MODEL, EXPERIMENT}
    assert all(SINCE <= event.started_at < UNTIL for event in events)


def test_parts_are_parts(events: list[UsageEvent]) -> None:
    """Cached tokens are part of the prompt, and reasoning of the completion; failures used nothing."""
    assert all(event.cached_tokens <= event.prompt_tokens for event in events)
    assert all(event.reasoning_tokens <= event.completion_tokens for event in events)
    assert not any(event.total_tokens for event in events if event.usage_source is UsageSource.NONE)
    assert sum(event.cached_tokens for event in events) > 0 < sum(event.reasoning_tokens for event in events)


def test_refusals_are_of_known_keys() -> None:
    """What was refused is of keys that there are, for several reasons, at times of the month."""
    found = refusals(SINCE, UNTIL, Random(3))

    assert {each.key for each in found} <= set(HOLDERS)
    assert len({each.reason for each in found}) == 3
    assert all(SINCE <= each.hour < UNTIL and each.times > 0 for each in found)
