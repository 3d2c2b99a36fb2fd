"""The ledger's partitions on PostgreSQL: one a month in UTC, made ahead.

What begins in a month without a partition lies in the default one, and counts like everything else. A month
that has rows there gets no partition of its own any more: PostgreSQL would refuse it, and moving events is no
work for a server under load.
"""

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from meter.store.database import Database, RowRefused
from meter.store.tables import usage_events

MONTHS_AHEAD = 2
# Long reads of the default partition are not worth waiting for: there is time until the month begins.
LOCK_SECONDS_MAX = 2
_PREFIX = f"{usage_events.name}_"
_MONTHLY = re.compile(rf"{_PREFIX}\d{{4}}_\d{{2}}", re.ASCII)
# Any number, as long as all servers use the same.
_ADVISORY_LOCK = 0x6D65746572

log = logging.getLogger(__name__)


def make_partitions(database: Database, now: datetime) -> list[str]:
    """Make the partitions of this month and the next ones; returns those whose rows are in the default one.

    Several servers may do it at once, and as often as they like. Raises `DatabaseUnavailable` where somebody
    reads the default partition for too long; nothing is lost by trying again later.
    """
    if database.is_sqlite:
        return []
    months = list(_months(now))
    names = [_name(month) for month in months[:-1]]
    with database.read() as connection:
        missing = [name for name in names if not _is_there(connection, name)]
    bounds = {name: (since, until) for name, since, until in zip(names, months, months[1:], strict=False)}
    return [name for name in missing if not _make(database, name, *bounds[name])]


def is_partition(table: str) -> bool:
    """Say whether a table is a partition of the ledger, which no migration makes or changes by itself."""
    return table.startswith(_PREFIX)


def ended_by(database: Database, instant: datetime) -> list[str]:
    """Return the partitions of months that had ended by an instant, in order."""
    if database.is_sqlite:
        return []
    query = (
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = %s::regclass ORDER BY relname"
    )
    with database.read() as connection:
        names = connection.exec_driver_sql(query, (usage_events.name,)).scalars().all()
    month = _name(instant.astimezone(UTC))
    return [name for name in names if _MONTHLY.fullmatch(name) and name < month]


def claim(connection: sa.Connection, name: str) -> bool:
    """Keep others from making or dropping partitions in this transaction; says whether one is still there."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    return _is_there(connection, name)


def detach(connection: sa.Connection, name: str) -> None:
    """Take a partition out of the ledger; it stays a table of its own."""
    connection.exec_driver_sql(f"ALTER TABLE {usage_events.name} DETACH PARTITION {name}")


def _make(database: Database, name: str, since: datetime, until: datetime) -> bool:
    try:
        with database.write() as connection:
            if not claim(connection, name):
                # Attaching, unlike making it in place, lets the ledger be written meanwhile.
                connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {usage_events.name} INCLUDING ALL)")
                connection.exec_driver_sql(
                    f"ALTER TABLE {usage_events.name} ATTACH PARTITION {name} "
                    f"FOR VALUES FROM ('{since.isoformat()}') TO ('{until.isoformat()}')"
                )
    except RowRefused:
        log.warning("%s is not made: events of that month are in the default partition", name)
        return False
    return True


def _is_there(connection: sa.Connection, name: str) -> bool:
    return connection.exec_driver_sql("SELECT to_regclass(%s)", (name,)).scalar() is not None


def _months(now: datetime) -> Iterator[datetime]:
    """Yield the beginnings of this month, of those to be made ahead, and of the one after them."""
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(MONTHS_AHEAD + 2):
        yield month
        month = (month + timedelta(days=31)).replace(day=1)


def _name(month: datetime) -> str:
    return f"{_PREFIX}{month:%Y_%m}"
