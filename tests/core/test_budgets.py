"""Whose budgets apply, which window an instant falls into, and what is spent in it."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.budgets import (
    BEGINNING,
    LIMIT_MAX,
    Budget,
    Enforcement,
    Measure,
    OwnerKind,
    Span,
    Standing,
    charged,
    check_pattern,
    check_thresholds,
    format_amount,
    parse_limit,
    spent_by_window,
)
from meter.core.events import Outcome, UsageEvent, UsageSource

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def budget(**fields: object) -> Budget:
    """Make a budget of the organisation's, by the day in UTC."""
    values: dict[str, object] = {
        "id": "b",
        "owner_kind": OwnerKind.ORG,
        "measure": Measure.COST,
        "period": "day",
        "limit": 100,
        "enforcement": Enforcement.STRICT,
    }
    return Budget(**values | fields)  # type: ignore[arg-type]


def event(**fields: object) -> UsageEvent:
    """Make an event of one key and team."""
    values: dict[str, object] = {
        "event_id": "019ab1c2-0000-7000-8000-000000000000",
        "started_at": NOON,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "gateway",
        "model_requested": "openai/gpt-4.1",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cost": 10,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ({}, True),
        ({"owner_kind": OwnerKind.TEAM, "owner_id": "team"}, True),
        ({"owner_kind": OwnerKind.TEAM, "owner_id": "other"}, False),
        ({"owner_kind": OwnerKind.KEY, "owner_id": "key"}, True),
        # A team's id is no key's.
        ({"owner_kind": OwnerKind.KEY, "owner_id": "team"}, False),
        ({"model": "openai/*"}, True),
        ({"model": "openai/gpt-4.?"}, True),
        ({"model": "OpenAI/*"}, False),
        ({"model": "gpt-4.1"}, False),
        ({"owner_kind": OwnerKind.TEAM, "owner_id": "team", "model": "anthropic/*"}, False),
    ],
)
def test_whose_requests_count(fields: dict[str, object], applies: bool) -> None:
    """A budget counts the requests of its owner, for the models that its pattern names."""
    assert budget(**fields).applies("team", "key", "openai/gpt-4.1") is applies


@pytest.mark.parametrize(
    ("period", "tz", "at", "start", "end"),
    [
        ("hour", "UTC", "2026-11-23T12:34Z", "2026-11-23T12:00Z", "2026-11-23T13:00Z"),
        # Half an hour off.
        ("hour", "Asia/Kolkata", "2026-11-23T12:34Z", "2026-11-23T12:30Z", "2026-11-23T13:30Z"),
        ("day", "UTC", "2026-11-23T23:59:59.999999Z", "2026-11-23T00:00Z", "2026-11-24T00:00Z"),
        ("day", "UTC", "2026-11-24T00:00Z", "2026-11-24T00:00Z", "2026-11-25T00:00Z"),
        # Berlin's clocks go back on 25 October 2026: a day of 25 hours; and forward on 28 March 2027: 23.
        ("day", "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("day", "Europe/Berlin", "2027-03-28T12:00Z", "2027-03-27T23:00Z", "2027-03-28T22:00Z"),
        ("month", "Europe/Berlin", "2026-10-31T23:00Z", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
        ("month", "Europe/Berlin", "2026-10-31T22:59:59Z", "2026-09-30T22:00Z", "2026-10-31T23:00Z"),
        # New York's go back on 1 November 2026, within the month.
        ("day", "America/New_York", "2026-11-01T05:00Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        ("month", "America/New_York", "2026-11-15T00:00Z", "2026-11-01T04:00Z", "2026-12-01T05:00Z"),
        ("week", "America/New_York", "2026-11-01T12:00Z", "2026-10-26T04:00Z", "2026-11-02T05:00Z"),
        # A quarter of an hour off, and a leap year's February.
        ("month", "Asia/Kathmandu", "2028-02-29T18:14Z", "2028-01-31T18:15Z", "2028-02-29T18:15Z"),
        ("month", "Asia/Kathmandu", "2028-02-29T18:15Z", "2028-02-29T18:15Z", "2028-03-31T18:15Z"),
        # Half an hour of summer time.
        ("day", "Australia/Lord_Howe", "2026-10-04T00:00Z", "2026-10-03T13:30Z", "2026-10-04T13:00Z"),
    ],
)
def test_windows(period: str, tz: str, at: str, start: str, end: str) -> None:
    """A window is a period of the zone's calendar, whatever its clocks do meanwhile."""
    found = budget(period=period, tz=tz).span(datetime.fromisoformat(at))

    assert found == Span(datetime.fromisoformat(start), datetime.fromisoformat(end))


def test_a_total_has_no_end() -> None:
    """What is limited in all has one window for ever."""
    assert budget(period="total").span(NOON) == Span(BEGINNING, None)


def test_what_an_entry_counts_for() -> None:
    """An attempt counts its cost, its tokens and itself; a correction its cost, which may be negative."""
    assert charged(event()) == (10, 7, 1)
    assert charged(event(cost=None)) == (0, 7, 1)
    assert charged(event(corrects_id="x", cost=-4, prompt_tokens=0, completion_tokens=0)) == (-4, 0, 0)


def test_what_is_spent_in_windows() -> None:
    """Entries add up by budget and window, each in the window in which it started."""
    daily = budget(id="daily")
    tokens = budget(
        id="tokens", measure=Measure.TOKENS, period="total", owner_kind=OwnerKind.TEAM, owner_id="team"
    )
    others = budget(id="others", owner_kind=OwnerKind.TEAM, owner_id="other")
    events = [
        event(),
        event(cost=5),
        event(started_at=NOON + timedelta(days=1)),
        event(corrects_id="x", cost=-2),
    ]

    found = spent_by_window([daily, tokens, others], events)

    assert found == {
        ("daily", daily.span(NOON)): 13,
        ("daily", daily.span(NOON + timedelta(days=1))): 10,
        ("tokens", tokens.span(NOON)): 28,
    }


@pytest.mark.parametrize(
    ("text", "measure", "limit"),
    [
        ("50", Measure.COST, 50 * 10**12),
        ("0.000000000001", Measure.COST, 1),
        ("0", Measure.COST, 0),
        ("1000000", Measure.TOKENS, 1_000_000),
        ("3", Measure.REQUESTS, 3),
    ],
)
def test_limits(text: str, measure: Measure, limit: int) -> None:
    """Limits are read exactly and shown as they were meant."""
    assert parse_limit(text, measure) == limit
    assert parse_limit(format_amount(limit, measure), measure) == limit


@pytest.mark.parametrize(
    ("text", "measure"),
    [
        ("-1", Measure.COST),
        ("much", Measure.COST),
        ("1e30", Measure.COST),
        ("0.0000000000001", Measure.COST),
        ("1.5", Measure.TOKENS),
        ("-3", Measure.REQUESTS),
        ("٣", Measure.REQUESTS),
        (str(LIMIT_MAX + 1), Measure.TOKENS),
        ("", Measure.REQUESTS),
    ],
)
def test_limits_that_are_none(text: str, measure: Measure) -> None:
    """What is no limit is refused, repeating what was written."""
    with pytest.raises(ValueError, match=r"limit|amount|finer"):
        parse_limit(text, measure)


def test_patterns_and_thresholds() -> None:
    """A pattern for everything is none; thresholds are sorted, and percentages."""
    assert check_pattern("*") == ""
    assert check_pattern("openai/*") == "openai/*"
    assert check_thresholds([100, 50, 50]) == (50, 100)
    for pattern in (" a", "a\n", "x" * 257):
        with pytest.raises(ValueError, match="pattern"):
            check_pattern(pattern)
    for percent in (0, -1, 1001):
        with pytest.raises(ValueError, match="percentages"):
            check_thresholds([percent])


def test_what_is_available() -> None:
    """What is neither spent nor reserved is available; past the limit that is nothing."""

    def available(spent: int, reserved: int) -> int:
        return Standing(budget=budget(), start=NOON, end=None, spent=spent, reserved=reserved).available

    assert [available(0, 0), available(60, 30), available(80, 30)] == [100, 10, 0]


def test_whose_it_is_in_words() -> None:
    """A refusal says whose budget was too small, and what it limits."""
    assert budget().whose == "the organisation (cost a day)"
    named = budget(owner_kind=OwnerKind.TEAM, owner_id="t", owner="search", model="openai/*", period="total")
    assert named.whose == "team 'search' for models 'openai/*' (cost in all)"
