"""Charging windows of budgets with what entries have cost, in the transaction that appends them.

A batch of few events takes as many statements as one of many. So they go to the driver as they are written
here: SQLAlchemy takes ten times as long for each as SQLite does.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.alerts import Change
from meter.core.budgets import Budget, Measure, charged, place_of, spent_by_window
from meter.core.events import UsageEvent
from meter.store.database import Database
from meter.store.sqlite import time_text
from meter.store.tables import dump_json
from meter.store.windows import Key, Made, make

# Windows by their budgets and starts, and those of allowances.
_FIND = (
    "SELECT id, budget_id, start, 0 FROM budget_windows WHERE (budget_id, start) IN ({pairs}) "
    "UNION ALL SELECT window_id, '', NULL, id FROM allowances WHERE id IN ({ids})"
)
_WINDOWS = (
    "SELECT budget_windows.id, spent, measure FROM budget_windows JOIN budgets ON budgets.id = budget_id "
    "WHERE budget_windows.id IN ({ids}) ORDER BY budget_windows.id"
)
_ALLOWANCES = "SELECT id, window_id, amount FROM allowances WHERE id IN ({ids}) ORDER BY id"


class _Statements(NamedTuple):
    find: str
    lock_windows: str
    lock_allowances: str
    change: str
    """Takes what is spent and reserved more, and the window's id."""
    shrink: str
    """Takes by how much, and the allowance's id."""


# A list is one value, so that a statement is the same for any number.
_SQLITE_IDS = "SELECT value FROM json_each(?)"
_SQLITE = _Statements(
    _FIND.format(
        pairs="SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)",
        ids=_SQLITE_IDS,
    ),
    _WINDOWS.format(ids=_SQLITE_IDS),
    _ALLOWANCES.format(ids=_SQLITE_IDS),
    "UPDATE budget_windows SET spent = spent + ?, reserved = reserved + ? WHERE id = ?",
    "UPDATE allowances SET amount = amount - ? WHERE id = ?",
)
_POSTGRESQL_IDS = "SELECT unnest(%s::bigint[])"
_POSTGRESQL = _Statements(
    _FIND.format(pairs="SELECT * FROM unnest(%s::varchar[], %s::timestamptz[])", ids=_POSTGRESQL_IDS),
    _WINDOWS.format(ids=_POSTGRESQL_IDS) + " FOR UPDATE OF budget_windows",
    _ALLOWANCES.format(ids=_POSTGRESQL_IDS) + " FOR UPDATE",
    "UPDATE budget_windows AS was "
    "SET spent = was.spent + more.spent, reserved = was.reserved + more.reserved "
    "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS more (spent, reserved, id) "
    "WHERE was.id = more.id",
    "UPDATE allowances AS was SET amount = was.amount - less.amount "
    "FROM unnest(%s::bigint[], %s::bigint[]) AS less (amount, id) WHERE was.id = less.id",
)


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
    driver = _Driver(connection)
    made, of_allowance = driver.find(added, held)
    missing = {key: by_id[key[0]] for key in added if key not in made}
    made |= make(database, connection, missing)
    rows = driver.lock_windows({*(window.id for window in made.values()), *of_allowance.values()})
    changes = [_change(rows[made[key].id], made[key], by_id[key[0]], added[key]) for key in added]
    measures = {number: rows[window].measure for number, window in of_allowance.items() if window in rows}
    # What was made now has these entries in its sum already.
    spent = {window.id: added[key] for key, window in made.items() if not window.is_new}
    driver.change(spent, _take(driver, _used_of(events, measures)))
    return changes


class _Window(NamedTuple):
    id: int
    spent: int
    measure: Measure


class _Allowance(NamedTuple):
    id: int
    window_id: int
    amount: int


class _Driver:
    """A transaction's connection, as the driver has it."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection: Any = connection.connection.driver_connection
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._statements = _SQLITE if self._is_sqlite else _POSTGRESQL

    def find(self, keys: Iterable[Key], held: Collection[int]) -> tuple[dict[Key, Made], dict[int, int]]:
        """Return the windows that are there, and whose allowances are, which never changes."""
        asked = {(budget_id, self._instant(span.start)): (budget_id, span) for budget_id, span in keys}
        pairs = (
            [self._list(asked)] if self._is_sqlite else [[key[0] for key in asked], [key[1] for key in asked]]
        )
        rows = self._rows(self._statements.find, *pairs, self._list(held))
        made = {asked[row[1], row[2]]: Made(row[0], is_new=False) for row in rows if not row[3]}
        return made, {row[3]: row[0] for row in rows if row[3]}

    def lock_windows(self, ids: Collection[int]) -> dict[int, _Window]:
        """Lock windows in the order of their ids; returns those that are there."""
        rows = self._rows(self._statements.lock_windows, self._list(ids))
        return {row[0]: _Window(row[0], row[1], Measure(row[2])) for row in rows}

    def lock_allowances(self, ids: Collection[int]) -> list[_Allowance]:
        """Lock allowances in the order of their ids; returns those that are there."""
        return [_Allowance(*row) for row in self._rows(self._statements.lock_allowances, self._list(ids))]

    def change(self, spent: Mapping[int, int], less_reserved: Mapping[int, int]) -> None:
        """Change locked windows, by their ids."""
        changes = [
            (spent.get(number, 0), -less_reserved.get(number, 0), number)
            for number in sorted({*spent, *less_reserved})
            if spent.get(number) or less_reserved.get(number)
        ]
        self._write(self._statements.change, changes)

    def shrink(self, parts: Sequence[tuple[int, int]]) -> None:
        """Make locked allowances smaller by so much."""
        self._write(self._statements.shrink, parts)

    def _rows(self, statement: str, *values: object) -> list[Any]:
        found: list[Any] = self._connection.execute(statement, values).fetchall()
        return found

    def _write(self, statement: str, rows: Sequence[tuple[int, ...]]) -> None:
        if rows and self._is_sqlite:
            # Not by way of JSON, whose numbers SQLite makes inexact where they have more than 64 bits.
            self._connection.executemany(statement, rows)
        elif rows:
            self._connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])

    def _list(self, values: Iterable[object]) -> object:
        return dump_json(list(values)) if self._is_sqlite else list(values)

    def _instant(self, at: datetime) -> object:
        return time_text(at) if self._is_sqlite else at


def _change(row: _Window, window: Made, budget: Budget, amount: int) -> Change:
    before = row.spent - amount if window.is_new else row.spent
    return Change(budget, row.id, before, before + amount)


def _take(driver: _Driver, used: Mapping[int, int]) -> dict[int, int]:
    """Take what was used out of allowances, as far as they go; returns by how much less windows reserve."""
    if not used:
        return {}
    found = driver.lock_allowances(used)
    parts = [(min(used[each.id], each.amount), each) for each in found if each.amount]
    driver.shrink([(part, each.id) for part, each in parts])
    less: dict[int, int] = {}
    for part, each in parts:
        less[each.window_id] = less.get(each.window_id, 0) + part
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
