"""A batch of events on its way into the ledger, the driver's fastest way: COPY, or one prepared statement.

Nearly always none of them is there yet, and they go straight in. Where one is, they go by way of a temporary
table, from which those are taken that are missing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.store.database import RowRefused
from meter.store.sqlite import insert_rows, time_text
from meter.store.tables import UtcDateTime, dump_json, in_utc, usage_events

if TYPE_CHECKING:
    import psycopg
else:
    from meter.store import psycopg_errors as psycopg

_FIELDS = UsageEvent.__struct_fields__
NAMES = (*_FIELDS, "posted_at")
_COLUMNS = ", ".join(NAMES)
# The ledger's columns without its rules, which are enforced when the events get there.
_STAGED = "staged_events"
_CREATE = f"CREATE TEMPORARY TABLE {_STAGED} AS SELECT {_COLUMNS} FROM {usage_events.name} WHERE false"  # noqa: S608 (names of ours)
_DROP = f"DROP TABLE {_STAGED}"
# In the order of their key, so that two deliveries of the same events don't wait for each other.
_MOVE = (
    f"INSERT INTO {usage_events.name} ({_COLUMNS}) SELECT {_COLUMNS} FROM {_STAGED} WHERE true "  # noqa: S608 (names of ours)
    "ORDER BY event_id, started_at ON CONFLICT DO NOTHING RETURNING event_id"
)

_values = attrgetter(*_FIELDS)
_LISTS = [at for at, name in enumerate(NAMES) if isinstance(usage_events.c[name].type, sa.JSON)]
_key = attrgetter("event_id", "started_at")

_Convert = Callable[[Any], object]


def insert(
    connection: sa.Connection, events: Mapping[str, UsageEvent], posted_at: datetime
) -> list[UsageEvent]:
    """Insert events, which are given by their ids, into the ledger; returns those that were not there yet."""
    ordered = sorted(events.values(), key=_key)
    try:
        with connection.begin_nested():
            _fill(connection, usage_events.name, ordered, posted_at)
    except (sa.exc.IntegrityError, psycopg.IntegrityError):
        # Some are there, or break another rule, which shows when they are moved.
        return [events[event_id] for event_id in _insert_missing(connection, ordered, posted_at)]
    return list(events.values())


def rows(
    dialect: sa.Dialect, events: Iterable[UsageEvent], posted_at: datetime
) -> Iterator[tuple[object, ...]]:
    """Convert events to what the driver takes of `NAMES`; raises `RowRefused` where it takes one never."""
    *converters, (_, convert_posted_at) = _converters(dialect.name)
    posted = convert_posted_at(posted_at)
    for event in events:
        row = [*_values(event), posted]
        try:
            for at in _LISTS:
                value = row[at]
                row[at] = dump_json(value) if value else "[]"
            for at, convert in converters:
                value = row[at]
                if value is not None:
                    row[at] = convert(value)
        except (ValueError, TypeError) as error:
            raise RowRefused(f"{NAMES[at]} of event {event.event_id}: {error}") from error
        yield tuple(row)


def _insert_missing(
    connection: sa.Connection, ordered: Sequence[UsageEvent], posted_at: datetime
) -> list[str]:
    connection.exec_driver_sql(_CREATE)
    _fill(connection, _STAGED, ordered, posted_at)
    read = usage_events.c.event_id.type.result_processor(connection.dialect, None) or str
    inserted = [str(read(event_id)) for (event_id,) in connection.exec_driver_sql(_MOVE)]
    connection.exec_driver_sql(_DROP)
    return inserted


def _fill(connection: sa.Connection, table: str, ordered: Sequence[UsageEvent], posted_at: datetime) -> None:
    converted = rows(connection.dialect, ordered, posted_at)
    if connection.dialect.name == "sqlite":
        insert_rows(connection, f"{table} ({_COLUMNS})", list(converted))
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_COLUMNS}) FROM STDIN") as copy:
        # One by one, so that the server works while the next ones are made.
        for row in converted:
            copy.write_row(row)


@cache
def _converters(dialect: str) -> list[tuple[int, _Convert]]:
    """Return what has to be converted, as SQLAlchemy would, but in a fraction of its time."""
    found = ((at, _converter(dialect, usage_events.c[name].type)) for at, name in enumerate(NAMES))
    return [(at, convert) for at, convert in found if convert is not None]


def _converter(dialect: str, kind: sa.types.TypeEngine[Any]) -> _Convert | None:
    if isinstance(kind, UtcDateTime):
        return time_text if dialect == "sqlite" else _postgresql_time
    return _sqlite_uuid if dialect == "sqlite" and isinstance(kind, sa.Uuid) else None


def _postgresql_time(value: datetime) -> str:
    return in_utc(value).isoformat(" ")


def _sqlite_uuid(value: str) -> str:
    return value.replace("-", "")
