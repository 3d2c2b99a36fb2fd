"""How Alembic runs: on the connection that meter hands it, inside meter's own write transaction."""

from alembic import context

from meter.store.partitions import is_partition
from meter.store.tables import metadata

# A migration that waits for a lock makes everybody behind it wait too: rather give up, and be run again.
LOCK_TIMEOUT = "4s"
# Any number, as long as all servers use the same.
ADVISORY_LOCK = 0x6D65746573

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    # Of two servers that start at once one migrates; the other waits here, and then finds nothing to do.
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")


def is_compared(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out of `alembic check` what the server makes itself."""
    return kind != "table" or not is_partition(name or "")


context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite cannot alter a column in place; batch mode copies the table.
    render_as_batch=True,
    compare_type=True,
    include_name=is_compared,
)
context.run_migrations()
