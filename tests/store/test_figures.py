"""Figures for those who ask often: what the ledger holds by team, and how budgets stand."""

from datetime import timedelta
from random import Random

from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.rollup import Sums
from meter.store import budgets, figures, ledger, teams
from meter.store.database import Database
from tests.store.conftest import NOW, make_event, new_event_id, random_event

SOMEBODY = Signature("test", NOW)


def test_the_figures_are_the_ledgers(database: Database) -> None:
    """The sums of every team are those of its events, at any time, under the team's name."""
    random = Random(7)
    teams.create(database, team_id="t1", name="search", by=SOMEBODY)
    events = [random_event(random, NOW - timedelta(days=20), NOW) for _ in range(50)]
    ledger.append(database, events, NOW)
    expected: dict[str, Sums] = {}
    for event in events:
        expected.setdefault({"t1": "search"}.get(event.team_id, event.team_id), Sums()).add(event)

    assert figures.by_team(database) == expected


def test_an_empty_ledger_has_no_figures(database: Database) -> None:
    """Before anything was used there is nothing to show."""
    assert figures.by_team(database) == {}
    assert figures.standings(database, NOW) == []


def test_budgets_stand_as_they_do(database: Database) -> None:
    """What is spent is that of the window of now; in a window that nobody has made yet it is nothing."""
    made = Budget(
        id="b",
        owner_kind=OwnerKind.ORG,
        measure=Measure.COST,
        period="day",
        limit=1000,
        enforcement=Enforcement.STRICT,
    )
    budgets.put(database, made, SOMEBODY)
    ledger.append(database, [make_event(new_event_id(Random(1)), cost=30, prompt_tokens=1)], NOW)

    assert figures.standings(database, NOW) == budgets.standings(database, NOW)
    (today,) = figures.standings(database, NOW)
    (tomorrow,) = figures.standings(database, NOW + timedelta(days=1))

    assert (today.spent, tomorrow.spent) == (30, 0)
    assert tomorrow.start == today.end
