"""The windows of budgets: `spent` is the ledger's sum, folded in the transaction that appends events.

Whoever appends reads which budgets there are; whoever makes a budget reads what has been appended. So that
neither misses the other, appending and making exclude each other by an advisory lock; on SQLite there is one
writer at a time anyway.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.alerts import Change
from meter.core.budgets import Budget, Measure, Span, Standing, charged, spent_by_window
from meter.core.events import UsageEvent
from meter.store.database import Database
from meter.store.locks import Lock, hold
from meter.store.sums import spent_in, summable
from meter.store.tables import allowances, budget_windows, budgets

Key = tuple[str, Span]


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
    query = (
        sa.select(budget_windows, budgets.c.measure, budgets.c.limit)
        .join(budgets)
        .where(budget_windows.c.id.in_(sorted(set(ids))))
        .order_by(budget_windows.c.id)
        .with_for_update(of=budget_windows)
    )
    return {row.id: row for row in connection.execute(query)}


def _make(database: Database, connection: sa.Connection, budget: Budget, span: Span) -> Made:
    columns = budget_windows.c
    there = sa.select(columns.id).where(columns.budget_id == budget.id, columns.start == span.start)
    found = connection.scalar(there)
    if found is not None:
        return Made(found, is_new=False)
    values = {"budget_id": budget.id, "start": span.start, "end": span.end}
    statement = database.insert(budget_windows).values(**values, spent=spent_in(connection, budget, span))
    added = statement.on_conflict_do_nothing(index_elements=["budget_id", "start"]).returning(columns.id)
    made = connection.scalar(added)
    # Somebody else may have made it meanwhile, without the entries of this transaction.
    return Made(connection.execute(there).scalar_one() if made is None else made, is_new=made is not None)


def charge(
    database: Database,
    connection: sa.Connection,
    known: Sequence[Budget],
    events: Sequence[UsageEvent],
    horizon: datetime | None = None,
) -> list[Change]:
    """Add what entries have cost to the windows that they fall into, and take it out of what was reserved.

    The entries are in the ledger already, in this transaction, which shares appending. Returns what changed.
    A window that ended before the ledger's horizon stays as it is: nobody can sum it anew.
    """
    added = {
        key: amount
        for key, amount in spent_by_window(known, events).items()
        if horizon is None or key[1].end is None or key[1].end > horizon
    }
    held = {part.allowance for event in events for part in event.reserved}
    if not added and not held:
        return []
    by_id = {budget.id: budget for budget in known}
    made = make(database, connection, {key: by_id[key[0]] for key in added})
    of_allowance = _windows_of(connection, held)
    rows = lock(connection, [*(each.id for each in made.values()), *of_allowance.values()])
    changes = [_spend(connection, rows[made[key].id], made[key], by_id[key[0]], added[key]) for key in made]
    measures = {
        number: Measure(rows[window].measure) for number, window in of_allowance.items() if window in rows
    }
    _take(connection, events, measures)
    return changes


def _spend(connection: sa.Connection, row: sa.Row[Any], window: Made, budget: Budget, amount: int) -> Change:
    if window.is_new:
        # What was made now has these entries in its sum already.
        return Change(budget, row.id, row.spent - amount, row.spent)
    if amount:
        _change(connection, row.id, spent=amount)
    return Change(budget, row.id, row.spent, row.spent + amount)


def _windows_of(connection: sa.Connection, held: Iterable[int]) -> dict[int, int]:
    """Return whose windows allowances are, which never changes and so needs no lock."""
    query = sa.select(allowances.c.id, allowances.c.window_id).where(allowances.c.id.in_(held))
    return {row.id: row.window_id for row in connection.execute(query)}


def _take(connection: sa.Connection, events: Iterable[UsageEvent], measures: Mapping[int, Measure]) -> None:
    """Take what was spent out of the allowances that it was reserved in, as far as it was reserved."""
    taken: dict[int, int] = {}
    for event in events:
        amounts = charged(event)
        for reserved in event.reserved:
            measure = measures.get(reserved.allowance)
            if measure is not None:
                used = max(0, min(amounts.of(measure), reserved.amount))
                taken[reserved.allowance] = taken.get(reserved.allowance, 0) + used
    query = sa.select(allowances).where(allowances.c.id.in_(taken)).order_by(allowances.c.id)
    for row in connection.execute(query.with_for_update()).all():
        part = min(taken[row.id], row.amount)
        if part:
            change = {"amount": allowances.c.amount - part}
            connection.execute(sa.update(allowances).where(allowances.c.id == row.id).values(change))
            _change(connection, row.window_id, reserved=-part)


def _change(connection: sa.Connection, window_id: int, *, spent: int = 0, reserved: int = 0) -> None:
    columns = budget_windows.c
    changed = {"spent": columns.spent + spent, "reserved": columns.reserved + reserved}
    connection.execute(sa.update(budget_windows).where(columns.id == window_id).values(changed))


def reserve(connection: sa.Connection, window_id: int, amount: int) -> None:
    """Change what is reserved of a window, whose row is locked."""
    _change(connection, window_id, reserved=amount)


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
