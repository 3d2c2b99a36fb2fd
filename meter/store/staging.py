"""A batch of events on its way into the ledger, the driver's fastest way: COPY, or one prepared statement.

Nearly always none of them is there yet, and they go straight in. Where one is, they go by way of a temporary
table, from which those are taken that are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter, itemgetter
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
_key = itemgetter(_FIELDS.index("event_id"), _FIELDS.index("started_at"))

_Rows = list[tuple[object, ...]]
_Convert = Callable[[Any], object]


def insert(
    connection: sa.Connection, events: Mapping[str, UsageEvent], posted_at: datetime
) -> list[UsageEvent]:
    """Insert events, which are given by their ids, into the ledger; returns those that were not there yet."""
    converted = sorted(rows(connection.dialect, list(events.values()), posted_at), key=_key)
    try:
        with connection.begin_nested():
            _fill(connection, usage_events.name, converted)
    except (sa.exc.IntegrityError, psycopg.IntegrityError):
        # Some are there, or break another rule, which shows when they are moved.
        return [events[event_id] for event_id in _insert_missing(connection, converted)]
    return list(events.values())


def rows(dialect: sa.Dialect, events: Sequence[UsageEvent], posted_at: datetime) -> _Rows:
    """Convert events to what the driver takes of `NAMES`; raises `RowRefused` where it takes one never."""
    *converters, (_, convert_posted_at) = _converters(dialect)
    posted = convert_posted_at(posted_at)
    converted = []
    for event in events:
        row = [*_values(event), posted]
        try:
            for at in _LISTS:
                row[at] = dump_json(row[at]) if row[at] else "[]"
            for at, convert in converters:
                if row[at] is not None:
                    row[at] = convert(row[at])
        except (ValueError, TypeError) as error:
            raise RowRefused(f"{NAMES[at]} of event {event.event_id}: {error}") from error
        converted.append(tuple(row))
    return converted


def _insert_missing(connection: sa.Connection, converted: _Rows) -> list[str]:
    connection.exec_driver_sql(_CREATE)
    _fill(connection, _STAGED, converted)
    read = usage_events.c.event_id.type.result_processor(connection.dialect, None) or str
    inserted = [str(read(event_id)) for (event_id,) in connection.exec_driver_sql(_MOVE)]
    connection.exec_driver_sql(_DROP)
    return inserted


def _fill(connection: sa.Connection, table: str, converted: _Rows) -> None:
    if connection.dialect.name == "sqlite":
        insert_rows(connection, f"{table} ({_COLUMNS})", converted)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_COLUMNS}) FROM STDIN") as copy:
        for row in converted:
            copy.write_row(row)


def _converters(dialect: sa.Dialect) -> list[tuple[int, _Convert]]:
    """Return what has to be converted, as SQLAlchemy would, but in a fraction of its time."""
    found = ((at, _converter(dialect, usage_events.c[name].type)) for at, name in enumerate(NAMES))
    return [(at, convert) for at, convert in found if convert is not None]


def _converter(dialect: sa.Dialect, kind: sa.types.TypeEngine[Any]) -> _Convert | None:
    is_sqlite = dialect.name == "sqlite"
    if isinstance(kind, UtcDateTime):
        return time_text if is_sqlite else _postgresql_time
    return _sqlite_uuid if is_sqlite and isinstance(kind, sa.Uuid) else None


def _postgresql_time(value: datetime) -> str:
    return in_utc(value).isoformat(" ")


def _sqlite_uuid(value: str) -> str:
    return value.replace("-", "")
