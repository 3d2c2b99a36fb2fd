"""What time it is, by the one clock that all servers on a database share."""

from datetime import UTC, datetime

import sqlalchemy as sa

from meter.store.database import Database


def now(connection: sa.Connection, machine: datetime) -> datetime:
    """Return the database's time; SQLite has none of its own, and goes by the machine's."""
    if connection.dialect.name != "postgresql":
        return machine
    told: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return told.astimezone(UTC)


def database_now(database: Database, machine: datetime) -> datetime:
    """Ask a database what time it is."""
    with database.read() as connection:
        return now(connection, machine)
