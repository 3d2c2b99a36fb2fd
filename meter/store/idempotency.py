"""What has been asked for with an Idempotency-Key: noted before it is done, with its answer afterwards."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from meter.core.idempotency import Errand, Past
from meter.store.database import Database
from meter.store.tables import idempotency_keys

REMEMBERED = timedelta(hours=24)


def begin(database: Database, errand: Errand, now: datetime) -> Past | None:
    """Note that something is going to be done; returns what there is of it where it was noted before."""
    row = {"digest": errand.digest, "request_digest": errand.request_digest, "created_at": now}
    columns = idempotency_keys.c
    statement = database.insert(idempotency_keys).values(row).on_conflict_do_nothing()
    with database.write() as connection:
        connection.execute(sa.delete(idempotency_keys).where(columns.created_at < now - REMEMBERED))
        if connection.scalar(statement.returning(columns.digest)) is not None:
            return None
        found = connection.execute(sa.select(idempotency_keys).where(columns.digest == errand.digest)).one()
    return Past(found.request_digest == errand.request_digest, found.status, found.response)


def finish(database: Database, errand: Errand, status: int, response: str) -> None:
    """Note the answer."""
    noted = idempotency_keys.c.digest == errand.digest
    with database.write() as connection:
        change = {"status": status, "response": response}
        connection.execute(sa.update(idempotency_keys).where(noted).values(change))


def forget(database: Database, errand: Errand) -> None:
    """Take a note back: what was asked for has been refused, and may be asked for again."""
    with database.write() as connection:
        connection.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.digest == errand.digest))
