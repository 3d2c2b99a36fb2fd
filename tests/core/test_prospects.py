"""Prospects: how much of a budget is gone, and what comes of it."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind, Standing
from meter.core.prospects import Prospect, prospect

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
USD = 10**12


def look(spent: int, days: float, *, limit: int = 30 * USD, end: datetime | None = END) -> Prospect:
    """Look at a budget of a month after some days."""
    budget = Budget(
        id="b",
        owner_kind=OwnerKind.ORG,
        measure=Measure.COST,
        period="month",
        tz="Europe/Berlin",
        limit=limit,
        enforcement=Enforcement.STRICT,
    )
    standing = Standing(budget=budget, start=START, end=end, spent=spent, reserved=3 * USD)
    return prospect(standing, START + timedelta(days=days))


def test_a_budget_that_will_not_last_says_when_it_ends() -> None:
    """At twice the rate it is gone after half of the month, told in the budget's own zone."""
    found = look(20 * USD, 10)

    assert (found.percent, found.reserved_percent, found.is_spent) == (66, 10, False)
    assert found.reached_at is not None
    assert found.reached_at.isoformat() == "2026-11-16T01:00:00+01:00"


def test_a_budget_that_lasts_says_what_it_comes_to() -> None:
    """At half the rate half of it is spent in the end."""
    found = look(5 * USD, 10)

    assert (found.projected, found.projected_percent, found.reached_at) == ("15.000000", 50, None)


@pytest.mark.parametrize(("spent", "is_spent"), [(30 * USD - 1, False), (30 * USD, True), (45 * USD, True)])
def test_a_hundred_per_cent_is_all_of_it(spent: int, is_spent: bool) -> None:
    """A picodollar less is not."""
    assert look(spent, 10).is_spent is is_spent


def test_a_window_that_has_just_begun_tells_nothing() -> None:
    """Nor does one that never ends."""
    assert look(5 * USD, 0.1).projected is None
    assert look(5 * USD, 10, end=None).projected is None


def test_a_limit_of_nothing_is_spent() -> None:
    """There is nothing to divide by."""
    assert look(0, 10, limit=0).is_spent
