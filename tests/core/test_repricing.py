"""What is rated again, and how the differences add up."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.corrections import Account, Cause, Posted, judge
from meter.core.events import UsageEvent
from meter.core.period import zone
from meter.core.prices import PriceBook
from meter.core.repricing import Asked, Repricing, Selection, columns, selection
from tests.core.test_prices import T, event, price

CAUSE = Cause("somebody@host", "why")
NOW = datetime(2026, 11, 25, 12, 34, 56, tzinfo=UTC)
ALL = Selection(since=T - timedelta(days=1), until=NOW, tz=UTC)


def told(asked: Selection, *events: UsageEvent, closed: tuple[datetime, ...] = ()) -> Repricing:
    """Rate events again by a book of one version."""
    book = PriceBook([price(1)])
    found = Repricing(asked, closed)
    for each in events:
        account = Account(Posted(each, T))
        verdict = judge(account, book, CAUSE)
        found.look(account, verdict)
        if verdict.correction is not None:
            found.add(account, verdict.correction)
    return found


def test_a_selection_ends_now_unless_it_says_when() -> None:
    """Bounds are instants of the zone; without an end it is now."""
    berlin = selection(Asked(since="2026-11-01", tz="Europe/Berlin"), NOW)
    exact = selection(Asked(since="2026-10-31T23:59:59.999", until="2026-11"), NOW)

    assert (berlin.since, berlin.until) == (datetime(2026, 10, 31, 23, tzinfo=UTC), NOW)
    assert (exact.since, exact.until) == (T - timedelta(milliseconds=1), T)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (Asked(since="2026-11-02", until="2026-11-01"), "'since' must be earlier"),
        (Asked(since="2026-11-02", until="2026-11-02"), "'since' must be earlier"),
        (Asked(since="2027-01-01"), "'since' must be earlier"),
        (Asked(since="yesterday"), "not a date: 'yesterday'"),
        (Asked(since="2026-11-01", until="soon"), "not a date: 'soon'"),
        (Asked(since="2026-11-01", tz="Mars/Olympus"), "unknown time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: Asked, fault: str) -> None:
    """A selection of nothing, and what cannot be read, is refused in a sentence."""
    with pytest.raises(ValueError, match=fault):
        selection(asked, NOW)


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        (None, True),
        ("model", True),
        ("served-*", True),
        ("MODEL", False),
        ("mod?l", True),
        ("mode", False),
        ("*", True),
    ],
)
def test_a_pattern_means_the_model_that_was_asked_for_or_answered(pattern: str | None, held: bool) -> None:
    """A pattern is of a shell's kind, and matches either name of a model."""
    asked = Selection(since=T, until=NOW, tz=UTC, model=pattern)

    assert asked.holds(event(model_served="served-2026")) is held


def test_differences_are_told_by_day_team_and_model() -> None:
    """Each row sums what changes for a day of the zone, a team and a model, and the total sums the rows."""
    late = T - timedelta(minutes=1)
    events = [
        event(cost=10**12, price_id=9),
        event(cost=10**12, price_id=9, started_at=late),
        event(),
        event(team_id="a", model_served="model", cost=4 * 10**12, price_id=9),
        event(model_requested="nobody knows"),
        event(cost=3 * 10**12, price_id=1),
    ]

    found = told(ALL, *events)

    assert [(*place, *columns(difference).values()) for place, difference in found.rows()] == [
        ("2026-10-31", "team", "model", 1, 0, "1.000000", "3.000000", "2.000000"),
        ("2026-11-01", "a", "model", 1, 0, "4.000000", "3.000000", "-1.000000"),
        ("2026-11-01", "team", "model", 2, 1, "1.000000", "6.000000", "5.000000"),
    ]
    assert columns(found.total) == {
        "events": 4,
        "unpriced_before": 1,
        "old_cost_usd": "6.000000",
        "new_cost_usd": "12.000000",
        "difference_usd": "6.000000",
    }
    assert (found.looked_at, found.still_unpriced, found.repeated) == (6, 1, 0)


def test_days_are_those_of_the_zone() -> None:
    """An event shortly before midnight UTC is of the next day in Berlin."""
    asked = Selection(since=T, until=NOW, tz=zone("Europe/Berlin"))

    found = told(asked, event(started_at=T - timedelta(minutes=1)))

    assert [place.day for place in found.differences] == ["2026-11-01"]


def test_what_was_unpriced_has_no_old_cost() -> None:
    """A row of nothing but unpriced events shows no old cost, which is not the same as 0."""
    unpriced, free = told(ALL, event()), told(ALL, event(cost=0, price_id=9))

    assert columns(unpriced.total)["old_cost_usd"] is None
    assert columns(free.total)["old_cost_usd"] == "0.000000"
    assert columns(told(ALL).total)["old_cost_usd"] == "0.000000"


def test_closed_months_are_told_apart() -> None:
    """What belongs to a closed month is counted beside, too."""
    october = datetime(2026, 10, 1, tzinfo=UTC)

    found = told(ALL, event(), event(started_at=T - timedelta(seconds=1)), closed=(october,))

    assert (found.total.events, found.of_closed_months.events) == (2, 1)
    assert columns(found.of_closed_months)["difference_usd"] == "3.000000"
