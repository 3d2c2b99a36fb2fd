"""Closed months in the database."""

from datetime import datetime

import sqlalchemy as sa

from meter.core.audit import Signature
from meter.core.errors import Conflict
from meter.core.months import ClosedMonth
from meter.core.period import Period
from meter.core.retention import label
from meter.store import audit, retention
from meter.store.database import Database
from meter.store.locks import Lock, hold
from meter.store.tables import closed_months

_MONTHS = sa.select(closed_months.c.month)


def close(database: Database, month: Period, by: Signature) -> ClosedMonth:
    """Close a month; raises `Conflict` where it is closed already.

    What is being appended meanwhile counts in the month as before, or sees that it is closed.
    """
    closing = ClosedMonth(month.start, by.at, by.actor)
    with database.write() as connection:
        hold(connection, Lock.APPENDS)
        query = sa.select(closed_months).where(closed_months.c.month == month.start)
        horizon = retention.horizon(connection)
        if horizon is not None and month.start < horizon:
            raise Conflict(
                f"{month.label} needs no closing: the ledger begins at {label(horizon)}, and what comes for "
                "a time before counts when it is posted",
                param="month",
            )
        earlier = connection.execute(query).mappings().first()
        if earlier is not None:
            raise Conflict(_sentence(_closed_month(earlier)), param="month")
        row = {"month": closing.month, "closed_at": closing.closed_at, "closed_by": closing.closed_by}
        connection.execute(sa.insert(closed_months).values(row))
        audit.note(connection, by, "month.close", month.label)
    return closing


def list_all(database: Database) -> list[ClosedMonth]:
    """Return all closed months, in order."""
    with database.read() as connection:
        rows = connection.execute(sa.select(closed_months).order_by(closed_months.c.month)).mappings().all()
    return [_closed_month(row) for row in rows]


def closed(connection: sa.Connection) -> frozenset[datetime]:
    """Return the first instants of the closed months, for whoever shares appending."""
    return frozenset(connection.scalars(_MONTHS))


def _closed_month(row: sa.RowMapping) -> ClosedMonth:
    return ClosedMonth(row["month"], row["closed_at"], row["closed_by"])


def _sentence(month: ClosedMonth) -> str:
    return f"{month.label} is closed already, since {month.closed_at:%Y-%m-%dT%H:%M}Z, by {month.closed_by}"
