"""The ledger: events are appended, never changed, and the rollup is folded in the same transaction.

An event may be delivered twice, by a shipper that did not learn how its commit ended. Its id decides: what
the database already has is neither inserted nor folded again.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa

from meter.core import months
from meter.core.events import Outcome, Reserved, UsageEvent, UsageSource
from meter.core.rollup import COUNTS, LineKey, Sums, fold
from meter.store import budgets, staging, windows
from meter.store.database import Database
from meter.store.months import closed
from meter.store.tables import usage_15m, usage_events

EVENTS_PER_FETCH = 5000

_LINE_KEY = [column.name for column in usage_15m.primary_key]


def append(database: Database, events: Sequence[UsageEvent], posted_at: datetime) -> int:
    """Append the events that are not there yet, fold them into the rollup, and return how many they were.

    All of them or none: raises `RowRefused` where the database does not take one of them.
    """
    if not events:
        return 0
    with database.write() as connection:
        return len(post(database, connection, events, posted_at))


def post(
    database: Database, connection: sa.Connection, events: Sequence[UsageEvent], posted_at: datetime
) -> list[UsageEvent]:
    """Append events in a transaction that writes; returns those that were not there yet, as they are now."""
    if not events:
        return []
    windows.share_appends(connection)
    dated = months.counted(events, closed(connection), posted_at)
    unique = {event.event_id: event for event in dated}
    staging.fill(connection, unique.values(), posted_at)
    inserted = connection.scalars(_insert_staged(database)).all()
    staging.drop(connection)
    fresh = [unique[event_id] for event_id in inserted]
    _fold_into_rollup(database, connection, fresh)
    windows.charge(database, connection, budgets.read(connection), fresh)
    return fresh


def verify(database: Database) -> list[str]:
    """Compare rollup and budgets with the sums of the events; returns every mismatch as a sentence."""
    with database.read_long() as connection:
        expected = fold(_stored_events(connection))
        found = {_line_key(row): _line(row) for row in connection.execute(sa.select(usage_15m)).mappings()}
        of_budgets = windows.verify(connection, budgets.read(connection))
    keys = sorted(expected.keys() | found.keys())
    of_rollup = [
        _mismatch(key, expected.get(key), found.get(key))
        for key in keys
        if expected.get(key) != found.get(key)
    ]
    return of_rollup + of_budgets


def find(database: Database, event_id: str) -> UsageEvent | None:
    """Return one event; what is no event's id finds none."""
    try:
        exact = str(UUID(event_id))
    except ValueError:
        return None
    with database.read() as connection:
        query = sa.select(usage_events).where(usage_events.c.event_id == exact)
        row = connection.execute(query).mappings().first()
    return None if row is None else read_event(row)


def _insert_staged(database: Database) -> sa.Executable:
    # In the order of their key, so that two deliveries of the same events don't wait for each other.
    staged = sa.select(staging.staged_events).where(sa.true()).order_by("event_id", "started_at")
    statement = database.insert(usage_events).from_select(staging.staged_events.c.keys(), staged)
    executable: sa.Executable = statement.on_conflict_do_nothing().returning(usage_events.c.event_id)
    return executable


def _fold_into_rollup(database: Database, connection: sa.Connection, events: Iterable[UsageEvent]) -> None:
    lines = fold(events)
    if not lines:
        return
    statement = database.insert(usage_15m)
    added = {name: usage_15m.c[name] + statement.excluded[name] for name in COUNTS}
    statement = statement.on_conflict_do_update(index_elements=_LINE_KEY, set_=added)
    # Everyone locks the rollup's rows in the order of their key, so that no two writers wait for each other.
    rows = [msgspec.structs.asdict(key) | msgspec.structs.asdict(lines[key]) for key in sorted(lines)]
    connection.execute(statement, rows)


def _stored_events(connection: sa.Connection) -> Iterator[UsageEvent]:
    query = sa.select(usage_events).execution_options(yield_per=EVENTS_PER_FETCH)
    for row in connection.execute(query).mappings():
        yield read_event(row)


def read_event(row: sa.RowMapping) -> UsageEvent:
    """Read a row of the ledger."""
    values = {name: row[name] for name in UsageEvent.__struct_fields__}
    values["outcome"] = Outcome(row["outcome"])
    values["usage_source"] = UsageSource(row["usage_source"])
    for name in ("finish_reasons", "anomalies", "tags"):
        values[name] = tuple(row[name])
    values["reserved"] = tuple(Reserved(*part) for part in row["reserved"])
    return UsageEvent(**values)


def _line_key(row: sa.RowMapping) -> LineKey:
    return LineKey(**{name: row[name] for name in LineKey.__struct_fields__})


def _line(row: sa.RowMapping) -> Sums:
    return Sums(**{name: row[name] for name in COUNTS})


def _mismatch(key: LineKey, expected: Sums | None, found: Sums | None) -> str:
    differences = [
        f"{name} {getattr(found, name, 0)} instead of {getattr(expected, name, 0)}"
        for name in COUNTS
        if getattr(found, name, 0) != getattr(expected, name, 0)
    ]
    where = f"{key.bucket.isoformat()} team {key.team_id} key {key.key_id} {key.upstream} {key.model}"
    return f"usage_15m at {where}: {', '.join(differences) or 'an empty line'}"
