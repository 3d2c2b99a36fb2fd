"""The version of the tables: which one this meter works with, and which one a database has.

Alembic, which makes the tables, is large. Who only wants to know whether there is something to do asks here.
"""

import sqlalchemy as sa

from meter.store.database import Database

# The last of the migrations.
HEAD = "0008"

_ALEMBIC = sa.table("alembic_version", sa.column("version_num", sa.String))


def current(database: Database) -> str | None:
    """Return the version that the database has; `None` where it is empty."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table(_ALEMBIC.name):
            return None
        found: str | None = connection.scalars(sa.select(_ALEMBIC.c.version_num)).one_or_none()
        return found
