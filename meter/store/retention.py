"""Events that leave the ledger: first its horizon moves, for all readers at once, and then they go.

On PostgreSQL a month goes with its partition; elsewhere events go a few at a time, so that nobody waits for
long. A month that is cut short goes on with the next call. What started before the horizon and counts after
it, as late events and corrections of closed months do, stays until the month in which it counts goes too.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from meter.core.audit import Signature
from meter.core.period import periods
from meter.core.retention import Month, Plan, check_since, label
from meter.store import audit, partitions
from meter.store.database import Database
from meter.store.locks import Lock, hold
from meter.store.tables import installation, usage_events

EVENTS_PER_BATCH = 1000
# Locks are not handed out in turn: who waits for one needs a moment in which it is free.
PAUSE_SECONDS = 0.02
_HORIZON = "ledger_horizon"
_WRITTEN_HORIZON = sa.select(installation.c.value).where(installation.c.name == _HORIZON)


def horizon(connection: sa.Connection) -> datetime | None:
    """Return where the ledger begins; `None` where nothing has left it."""
    written = connection.scalar(_WRITTEN_HORIZON)
    return None if written is None else datetime.fromisoformat(written)


def begins(database: Database) -> datetime | None:
    """Return where the ledger begins, as `horizon` does."""
    with database.read() as connection:
        return horizon(connection)


def hold_ledger(connection: sa.Connection) -> datetime | None:
    """Keep events from leaving while a transaction reads them, before its first look; returns the horizon."""
    if connection.dialect.name == "postgresql":
        # A partition that goes is gone for transactions that began before it went, too.
        connection.exec_driver_sql(f"LOCK TABLE {usage_events.name} IN ACCESS SHARE MODE")
    return horizon(connection)


def require(connection: sa.Connection, what: str, since: datetime) -> None:
    """Raise `BeforeHorizon` for what would read events that have left; else keep them from leaving."""
    check_since(what, since, hold_ledger(connection))


def leaving(before: datetime) -> sa.ColumnElement[bool]:
    """Say which events leave a ledger that begins at an instant."""
    event = usage_events.c
    return (event.started_at < before) & (event.counted_at.is_(None) | (event.counted_at < before))


def plan(database: Database, wanted: datetime | None) -> Plan:
    """Count what would leave, by the month in which it started."""
    with database.read_long() as connection:
        current = hold_ledger(connection)
        target = max((at for at in (current, wanted) if at is not None), default=None)
        oldest = connection.scalar(sa.select(sa.func.min(usage_events.c.started_at)))
        if target is None or oldest is None:
            return Plan(current, wanted, ())
        months = [
            Month(month.label, connection.scalar(_count(month.start, month.end, target)) or 0)
            for month in periods(oldest, target, "month", UTC)
        ]
    return Plan(current, wanted, tuple(month for month in months if month.events))


def advance(database: Database, wanted: datetime, by: Signature) -> bool:
    """Move the horizon, if it is to move on; says whether it did. It never moves back."""
    with database.write() as connection:
        hold(connection, Lock.CORRECTIONS)
        hold(connection, Lock.APPENDS)
        current = horizon(connection)
        if current is not None and wanted <= current:
            return False
        row = {"name": _HORIZON, "value": wanted.astimezone(UTC).isoformat()}
        statement = database.insert(installation).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": statement.excluded.value}
        )
        connection.execute(statement)
        before = None if current is None else label(current)
        audit.note(connection, by, "ledger.retain", label(wanted), before=before)
    return True


def remove(database: Database, pause: Callable[[float], None] = time.sleep) -> int:
    """Take what is before the horizon out of the ledger; returns how many events those were.

    Raises `DatabaseUnavailable` where somebody reads the ledger for too long; the next call goes on.
    """
    before = begins(database)
    if before is None:
        return 0
    removed = sum(_drop(database, name, before) for name in partitions.ended_by(database, before))
    while count := _remove_batch(database, before):
        removed += count
        pause(PAUSE_SECONDS)
    return removed


def _drop(database: Database, name: str, before: datetime) -> int:
    """Drop a month's partition; what counts later goes to where months without a partition are."""
    with database.write() as connection:
        columns = (sa.Column(each.name, each.type) for each in usage_events.columns)
        partition = sa.Table(name, sa.MetaData(), *columns)
        if not partitions.claim(connection, name):
            return 0
        # Nothing is added to it any more, so that counting needs no lock that keeps others waiting.
        stays = partition.c.counted_at >= before
        total, staying = connection.execute(
            sa.select(sa.func.count(), sa.func.count().filter(stays)).select_from(partition)
        ).one()
        partitions.detach(connection, name)
        moved = sa.insert(usage_events).from_select(partition.c.keys(), sa.select(partition).where(stays))
        connection.execute(moved)
        connection.exec_driver_sql(f"DROP TABLE {name}")
    return int(total - staying)


def _remove_batch(database: Database, before: datetime) -> int:
    key = sa.tuple_(usage_events.c.event_id, usage_events.c.started_at)
    oldest = (
        sa.select(usage_events.c.event_id, usage_events.c.started_at)
        .where(leaving(before))
        .order_by(usage_events.c.started_at)
        .limit(EVENTS_PER_BATCH)
    )
    statement = sa.delete(usage_events).where(usage_events.c.started_at < before, key.in_(oldest))
    with database.write() as connection:
        # One at a time, so that two servers that clear up don't wait for each other's rows.
        hold(connection, Lock.RETENTION)
        return connection.execute(statement).rowcount


def _count(since: datetime, until: datetime, before: datetime) -> sa.Select[Any]:
    started_at = usage_events.c.started_at
    within = (started_at >= since) & (started_at < until)
    return sa.select(sa.func.count()).select_from(usage_events).where(within, leaving(before))
