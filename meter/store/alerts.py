"""Alerts in the database: whom they are taken by, and how far their delivery has come."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from meter.core.alerts import Alert, Delivery, Outcome, next_attempt
from meter.core.budgets import Budget, format_amount
from meter.store import budgets as budgets_store
from meter.store.database import Database
from meter.store.tables import alerts, budget_windows, budgets

# Whoever takes deliveries has so long; then somebody else may take them.
LEASE_SECONDS = 60.0
LISTED_MAX = 200


def take_due(database: Database, now: datetime, limit: int) -> list[Alert]:
    """Take alerts whose delivery is due, so that no other server takes them for a while."""
    with database.read() as connection:
        # Mostly there is none, and no reason to keep other writers waiting.
        if connection.scalar(sa.select(sa.func.count()).where(alerts.c.next_at <= now)) == 0:
            return []
    due = sa.select(alerts.c.id).where(alerts.c.next_at <= now).order_by(alerts.c.next_at).limit(limit)
    with database.write() as connection:
        ids = connection.scalars(due.with_for_update(skip_locked=True)).all()
        if not ids:
            return []
        lease = now + timedelta(seconds=LEASE_SECONDS)
        connection.execute(sa.update(alerts).where(alerts.c.id.in_(ids)).values(next_at=lease))
        return [delivery.alert for delivery in _read(connection, alerts.c.id.in_(ids))]


def record(database: Database, alert_id: int, outcome: Outcome, now: datetime) -> None:
    """Write down what became of an attempt, and when the next one is due."""
    with database.write() as connection:
        query = sa.select(alerts.c.attempts).where(alerts.c.id == alert_id).with_for_update()
        before = connection.scalar(query)
        if before is None:
            return  # Its budget was removed meanwhile.
        delivered = outcome.error is None
        values = {
            "attempts": before + 1,
            "delivered_at": now if delivered else None,
            "last_error": outcome.error,
            "next_at": None if delivered else next_attempt(before + 1, now),
        }
        connection.execute(sa.update(alerts).where(alerts.c.id == alert_id).values(values))


def list_recent(database: Database) -> list[Delivery]:
    """Return the newest alerts, and how far their deliveries have come."""
    with database.read_long() as connection:
        return _read(connection, sa.true())


def _read(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Delivery]:
    known = {budget.id: budget for budget in budgets_store.read(connection)}
    query = (
        sa.select(alerts, budget_windows.c.start, budget_windows.c.end, budgets.c.id.label("budget_id"))
        .join(budget_windows, budget_windows.c.id == alerts.c.window_id)
        .join(budgets, budgets.c.id == budget_windows.c.budget_id)
        .where(where)
        .order_by(alerts.c.id.desc())
        .limit(LISTED_MAX)
    )
    return [_delivery(row, known[row["budget_id"]]) for row in connection.execute(query).mappings()]


def _delivery(row: sa.RowMapping, budget: Budget) -> Delivery:
    alert = Alert(
        id=row["id"],
        budget=budget.id,
        whose=budget.whose,
        measure=budget.measure,
        threshold=row["threshold"],
        limit=format_amount(budget.limit, budget.measure),
        spent=format_amount(row["spent"], budget.measure),
        window_start=row["start"],
        window_end=row["end"],
        at=row["at"],
    )
    return Delivery(
        alert=alert,
        attempts=row["attempts"],
        delivered_at=row["delivered_at"],
        last_error=row["last_error"],
        next_at=row["next_at"],
    )
