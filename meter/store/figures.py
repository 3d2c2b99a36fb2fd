"""What the ledger holds in all and how budgets stand, for those who ask often: short, without locks."""

from datetime import datetime

import sqlalchemy as sa

from meter.core.budgets import Budget, Standing
from meter.core.rollup import Sums
from meter.store import budgets
from meter.store.database import Database
from meter.store.rollup import as_sums, read_summed, summed
from meter.store.tables import ROLLUP, budget_windows, teams


def by_team(database: Database) -> dict[str, Sums]:
    """Return the sums of everything that a team has used, by its name, or by its id where it has none."""
    months = ROLLUP["month"]
    sums = sa.select(months.c.team_id, *summed(months)).group_by(months.c.team_id)
    with database.read_long() as connection:
        rows = connection.execute(sums).all()
        names = {row.id: row.name for row in connection.execute(sa.select(teams.c.id, teams.c.name))}
    return {str(names.get(row[0], row[0])): as_sums(read_summed(tuple(row[1:]))) for row in rows}


def standings(database: Database, now: datetime) -> list[Standing]:
    """Return how all budgets stand; one whose window nobody has made yet has nothing spent in it."""
    with database.read_long() as connection:
        known = budgets.read(connection)
        starts = {budget.span(now).start for budget in known}
        query = sa.select(budget_windows).where(budget_windows.c.start.in_(starts))
        rows = {(row.budget_id, row.start): row for row in connection.execute(query)}
    return [_standing(budget, now, rows.get((budget.id, budget.span(now).start))) for budget in known]


def _standing(budget: Budget, now: datetime, row: sa.Row[tuple[object, ...]] | None) -> Standing:
    span = budget.span(now)
    spent, reserved = (0, 0) if row is None else (row.spent, row.reserved)
    return Standing(budget=budget, start=span.start, end=span.end, spent=spent, reserved=reserved)
