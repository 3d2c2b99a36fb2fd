"""The windows of budgets: `spent` is the ledger's sum, folded in the transaction that appends events.

Whoever appends reads which budgets there are; whoever makes a budget reads what has been appended. So that
neither misses the other, appending and making exclude each other by an advisory lock; on SQLite there is one
writer at a time anyway.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.alerts import Change
from meter.core.budgets import Budget, Measure, Span, Standing, charged, place_of, spent_by_window
from meter.core.events import UsageEvent
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
_HELD_IN = sa.select(allowances.c.id, allowances.c.window_id).where(
    allowances.c.id.in_(sa.bindparam("ids", expanding=True))
)
_ALLOWANCES_LOCKED = (
    sa.select(allowances)
    .where(allowances.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(allowances.c.id)
    .with_for_update()
)
_CHANGE = (
    sa.update(budget_windows)
    .where(budget_windows.c.id == sa.bindparam("window"))
    .values(
        spent=budget_windows.c.spent + sa.bindparam("more_spent"),
        reserved=budget_windows.c.reserved + sa.bindparam("more_reserved"),
    )
)
_SHRINK = (
    sa.update(allowances)
    .where(allowances.c.id == sa.bindparam("allowance"))
    .values(amount=allowances.c.amount - sa.bindparam("less"))
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
    changes = [_spent(rows[made[key].id], made[key], by_id[key[0]], added[key]) for key in made]
    measures = {
        number: Measure(rows[window].measure) for number, window in of_allowance.items() if window in rows
    }
    # What was made now has these entries in its sum already.
    spent = {window.id: added[key] for key, window in made.items() if not window.is_new}
    _change(connection, spent, _take(connection, events, measures))
    return changes


def _spent(row: sa.Row[Any], window: Made, budget: Budget, amount: int) -> Change:
    before = row.spent - amount if window.is_new else row.spent
    return Change(budget, row.id, before, before + amount)


def _windows_of(connection: sa.Connection, held: Collection[int]) -> dict[int, int]:
    """Return whose windows allowances are, which never changes and so needs no lock."""
    if not held:
        return {}
    return {row.id: row.window_id for row in connection.execute(_HELD_IN, {"ids": sorted(held)})}


def _take(
    connection: sa.Connection, events: Iterable[UsageEvent], measures: Mapping[int, Measure]
) -> dict[int, int]:
    """Take what was spent out of the allowances that it was reserved in, as far as it was reserved.

    Returns by how much that is less reserved, by window.
    """
    taken = _used_of(events, measures)
    if not taken:
        return {}
    rows = connection.execute(_ALLOWANCES_LOCKED, {"ids": sorted(taken)}).all()
    parts = [(row, part) for row in rows if (part := min(taken[row.id], row.amount))]
    less: dict[int, int] = {}
    for row, part in parts:
        less[row.window_id] = less.get(row.window_id, 0) + part
    if parts:
        connection.execute(_SHRINK, [{"allowance": row.id, "less": part} for row, part in parts])
    return less


def _used_of(events: Iterable[UsageEvent], measures: Mapping[int, Measure]) -> dict[int, int]:
    """Add up what was used of each allowance, for each event at most what it had reserved there."""
    places = {number: place_of(measure) for number, measure in measures.items()}
    used: dict[int, int] = {}
    for event in events:
        amounts = charged(event) if event.reserved else ()
        for reserved in event.reserved:
            number = reserved.allowance
            # One that is gone has no place.
            if number in places and (part := min(amounts[places[number]], reserved.amount)) > 0:
                used[number] = used.get(number, 0) + part
    return used


def _change(connection: sa.Connection, spent: Mapping[int, int], less_reserved: Mapping[int, int]) -> None:
    """Change locked windows, by their ids."""
    changes = [
        {"window": number, "more_spent": spent.get(number, 0), "more_reserved": -less_reserved.get(number, 0)}
        for number in sorted({*spent, *less_reserved})
        if spent.get(number) or less_reserved.get(number)
    ]
    if changes:
        connection.execute(_CHANGE, changes)


def reserve(connection: sa.Connection, window_id: int, amount: int) -> None:
    """Change what is reserved of a window, whose row is locked."""
    _change(connection, {}, {window_id: -amount})


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
