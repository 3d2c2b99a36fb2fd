"""The audit log in the database: written in the transaction of the change that it tells of."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from meter.core.audit import Entry, Signature
from meter.store.database import Database
from meter.store.tables import audit_log


def note(
    connection: sa.Connection, signature: Signature, action: str, target: str, **details: object
) -> None:
    """Write down a change, for the function that makes it, in its transaction."""
    row = {
        "at": signature.at,
        "actor": signature.actor,
        "action": action,
        "target": target,
        "details": msgspec.to_builtins(details),
    }
    connection.execute(sa.insert(audit_log).values(row))


def page(
    database: Database, *, before: int | None = None, since: datetime | None = None, limit: int
) -> list[Entry]:
    """Return changes, newest first: those before the entry of that id, and not before `since`."""
    query = sa.select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    if since is not None:
        query = query.where(audit_log.c.at >= since)
    with database.read_long() as connection:
        return [_entry(row) for row in connection.execute(query).mappings()]


def _entry(row: sa.RowMapping) -> Entry:
    values: dict[str, Any] = {name: row[name] for name in Entry.__struct_fields__}
    return Entry(**values)
