"""Locks that servers on one PostgreSQL hold against each other, each until its transaction ends.

SQLite has one writer as it is. Whoever takes several takes them in the order in which they stand here.
"""

from enum import IntEnum

import sqlalchemy as sa


class Lock(IntEnum):
    """What is locked; any numbers, as long as all servers use the same."""

    CORRECTIONS = 0x6D65746577
    """Deciding what an event costs now, and correcting it."""
    APPENDS = 0x6D65746574
    """Shared by who appends to the ledger; taken whole by who makes a budget, closes a month or moves the
    horizon."""
    RETENTION = 0x6D6574657277
    """Taking events out of the ledger that are before its horizon."""


def hold(connection: sa.Connection, lock: Lock, *, shared: bool = False) -> None:
    """Wait for a lock, and hold it until the transaction ends."""
    if connection.dialect.name != "postgresql":
        return
    # What other transactions committed while this one waited is seen by the statements that follow.
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.exec_driver_sql(f"SELECT {function}({lock.value})")
