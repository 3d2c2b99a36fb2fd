"""A batch of events on its way into the ledger: in a temporary table, filled the driver's fastest way.

PostgreSQL takes it by COPY, SQLite by one prepared statement. Everything after that is the same on both.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.store.database import RowRefused
from meter.store.tables import usage_events

_FIELDS = UsageEvent.__struct_fields__
_NAMES = (*_FIELDS, "posted_at")
# The ledger's columns without its rules, which are enforced when the events get there.
staged_events = sa.Table(
    "staged_events", sa.MetaData(), *(sa.Column(name, usage_events.c[name].type) for name in _NAMES)
)
_NOTHING = f"SELECT {', '.join(_NAMES)} FROM {usage_events.name} WHERE false"  # noqa: S608 (names of ours)
_CREATE = f"CREATE TEMPORARY TABLE {staged_events.name} AS {_NOTHING}"
_DROP = f"DROP TABLE {staged_events.name}"
_COPY = f"COPY {staged_events.name} FROM STDIN"
_INSERT = f"INSERT INTO {staged_events.name} VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608 (names of ours)

_values = attrgetter(*_FIELDS)


def fill(connection: sa.Connection, events: Iterable[UsageEvent], posted_at: datetime) -> None:
    """Make the table and put events into it; whoever reads it drops it in the same transaction."""
    connection.exec_driver_sql(_CREATE)
    rows = _rows(connection.dialect, events, posted_at)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT, rows)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)


def drop(connection: sa.Connection) -> None:
    """Drop the table; of a transaction that fails nothing is left anyway."""
    connection.exec_driver_sql(_DROP)


def _rows(dialect: sa.Dialect, events: Iterable[UsageEvent], posted_at: datetime) -> list[tuple[object, ...]]:
    """Convert events to what the driver takes, as SQLAlchemy would, where that makes a difference."""
    *converters, (_, convert_posted_at) = _converters(dialect)
    posted = convert_posted_at(posted_at)
    rows = []
    for event in events:
        row = [*_values(event), posted]
        try:
            for at, convert in converters:
                row[at] = convert(row[at])
        except (ValueError, TypeError) as error:
            raise RowRefused(f"{_NAMES[at]} of event {event.event_id}: {error}") from error
        rows.append(tuple(row))
    return rows


def _converters(dialect: sa.Dialect) -> list[tuple[int, Callable[[Any], object]]]:
    processors = (
        column.type.dialect_impl(dialect).bind_processor(dialect) for column in staged_events.columns
    )
    return [(at, convert) for at, convert in enumerate(processors) if convert is not None]
