"""The windows of budgets: `spent` is the ledger's sum, charged in the transaction that appends events.

Whoever appends reads which budgets there are; whoever makes a budget reads what has been appended. So that
neither misses the other, appending and making exclude each other by an advisory lock; on SQLite there is one
writer at a time anyway.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.budgets import Budget, Span, Standing
from meter.store.database import Database
from meter.store.locks import Lock, hold
from meter.store.sums import spent_in, summable
from meter.store.tables import allowances, budget_windows, budgets

Key = tuple[str, Span]

# Every batch asks these, so that they are written once.
_THERE = sa.select(budget_windows.c.id).where(
    budget_windows.c.budget_id == sa.bindparam("budget"), budget_windows.c.start == sa.bindparam("start")
)
_LOCKED = (
    sa.select(budget_windows, budgets.c.measure, budgets.c.limit)
    .join(budgets)
    .where(budget_windows.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(budget_windows.c.id)
    .with_for_update(of=budget_windows)
)
_RESERVE = (
    sa.update(budget_windows)
    .where(budget_windows.c.id == sa.bindparam("window"))
    .values(reserved=budget_windows.c.reserved + sa.bindparam("more"))
)


class Made(NamedTuple):
    """A window's id, and whether it was made just now."""

    id: int
    is_new: bool


def share_appends(connection: sa.Connection) -> None:
    """Keep budgets from being made or changed, and months from being closed, until this transaction ends."""
    hold(connection, Lock.APPENDS, shared=True)


def exclude_appends(connection: sa.Connection) -> None:
    """Keep everybody from appending to the ledger until this transaction ends."""
    hold(connection, Lock.APPENDS)


def row_of(database: Database, connection: sa.Connection, budget: Budget, at: datetime) -> sa.Row[Any]:
    """Return the window that holds an instant, locked; it is made if need be."""
    span = budget.span(at)
    made = make(database, connection, {(budget.id, span): budget})[budget.id, span]
    return lock(connection, [made.id])[made.id]


def standing_of(budget: Budget, row: sa.Row[Any]) -> Standing:
    """Read how a budget stands from a window's row."""
    return Standing(budget=budget, start=row.start, end=row.end, spent=row.spent, reserved=row.reserved)


def standings(
    database: Database, connection: sa.Connection, seen: Sequence[Budget], at: datetime
) -> list[Standing]:
    """Return how budgets stand in their windows of an instant; locks none, so that nobody waits for it."""
    spans = [budget.span(at) for budget in seen]
    keys = [(budget.id, span) for budget, span in zip(seen, spans, strict=True)]
    made = make(database, connection, dict(zip(keys, seen, strict=True)))
    ids = [each.id for each in made.values()]
    query = sa.select(budget_windows).where(budget_windows.c.id.in_(ids))
    rows = {row.id: row for row in connection.execute(query)}
    return [standing_of(budget, rows[made[key].id]) for budget, key in zip(seen, keys, strict=True)]


def make(database: Database, connection: sa.Connection, wanted: Mapping[Key, Budget]) -> dict[Key, Made]:
    """Return windows, and make those that are missing; a new one begins with what the ledger holds."""
    # In the order of their keys, so that two who make the same ones don't wait for each other.
    keys = sorted(wanted, key=lambda each: (each[0], each[1].start))
    return {key: _make(database, connection, wanted[key], key[1]) for key in keys}


def lock(connection: sa.Connection, ids: Iterable[int]) -> dict[int, sa.Row[Any]]:
    """Lock windows in the order of their ids, once in a transaction; returns those that are there.

    Beside its columns a row has its budget's `measure` and `limit`.
    """
    rows = connection.execute(_LOCKED, {"ids": sorted(set(ids))})
    return {row.id: row for row in rows}


def _make(database: Database, connection: sa.Connection, budget: Budget, span: Span) -> Made:
    key = {"budget": budget.id, "start": span.start}
    found = connection.scalar(_THERE, key)
    if found is not None:
        return Made(found, is_new=False)
    values = {"budget_id": budget.id, "start": span.start, "end": span.end}
    statement = database.insert(budget_windows).values(**values, spent=spent_in(connection, budget, span))
    added = statement.on_conflict_do_nothing(index_elements=["budget_id", "start"])
    made = connection.scalar(added.returning(budget_windows.c.id))
    # Somebody else may have made it meanwhile, without the entries of this transaction.
    if made is None:
        return Made(connection.execute(_THERE, key).scalar_one(), is_new=False)
    return Made(made, is_new=True)


def reserve(connection: sa.Connection, window_id: int, amount: int) -> None:
    """Change what is reserved of a window, whose row is locked."""
    connection.execute(_RESERVE, {"window": window_id, "more": amount})


def verify(connection: sa.Connection, known: Iterable[Budget], horizon: datetime | None = None) -> list[str]:
    """Compare every window with the ledger and the allowances; returns every mismatch as a sentence.

    Windows from before the ledger's horizon are compared only where the rollup alone tells what was spent.
    """
    by_id = {budget.id: budget for budget in known}
    held = sa.func.coalesce(sa.func.sum(allowances.c.amount), 0).label("held")
    query = sa.select(budget_windows, held).outerjoin(allowances).group_by(*budget_windows.c)
    sentences = []
    for row in connection.execute(query):
        budget = by_id[row.budget_id]
        span = Span(row.start, row.end)
        expected = spent_in(connection, budget, span) if summable(budget, span, horizon) else row.spent
        where = f"window from {row.start.isoformat()} of the budget of {budget.whose}"
        if row.spent != expected:
            sentences.append(f"{where}: spent {row.spent} instead of {expected}")
        if row.reserved != int(row.held):
            sentences.append(f"{where}: reserved {row.reserved}, and allowances hold {row.held}")
    return sentences
