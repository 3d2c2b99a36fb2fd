"""The ledger: events are appended, never changed, and the rollup is folded in the same transaction.

An event may be delivered twice, by a shipper that did not learn how its commit ended. Its id decides: what
the database already has is neither inserted nor folded again.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from meter.core import months
from meter.core.events import Outcome, Reserved, UsageEvent, UsageSource
from meter.core.rollup import fold
from meter.store import budgets, charging, retention, rollup, staging, thresholds, windows
from meter.store.database import Database
from meter.store.months import closed
from meter.store.tables import usage_events

EVENTS_PER_FETCH = 5000


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
    horizon = retention.horizon(connection)
    dated = months.counted(events, closed(connection), posted_at, horizon)
    unique = {event.event_id: event for event in dated}
    fresh = staging.insert(connection, unique, posted_at)
    rollup.add(connection, fold(fresh))
    changes = charging.charge(database, connection, budgets.read(connection), fresh, horizon)
    thresholds.raise_reached(database, connection, changes, posted_at)
    return fresh


def verify(database: Database) -> list[str]:
    """Compare rollup and budgets with the sums of the events; returns every mismatch as a sentence.

    Where events have left the ledger, what counts before its horizon cannot be compared.
    """
    with database.read_long() as connection:
        horizon = retention.hold_ledger(connection)
        of_rollup = rollup.mismatches(connection, fold(_stored_events(connection, horizon)), horizon)
        return of_rollup + windows.verify(connection, budgets.read(connection), horizon)


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


def _stored_events(connection: sa.Connection, horizon: datetime | None) -> Iterator[UsageEvent]:
    query = sa.select(usage_events).execution_options(yield_per=EVENTS_PER_FETCH)
    if horizon is not None:
        query = query.where(sa.not_(retention.leaving(horizon)))
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
