"""Raising alerts, in the transaction in which a window reaches a threshold of its budget."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from meter.core.alerts import Change, reached
from meter.store.database import Database
from meter.store.tables import alerts


def raise_reached(
    database: Database, connection: sa.Connection, changes: Sequence[Change], at: datetime
) -> None:
    """Raise an alert for each threshold that was reached; one that was raised for a window stays one."""
    rows = [
        {"window_id": change.window_id, "threshold": percent, "spent": change.after, "at": at, "next_at": at}
        for change in changes
        for percent in reached(change.budget.thresholds, change.budget.limit, change.before, change.after)
    ]
    if rows:
        statement = database.insert(alerts).on_conflict_do_nothing(index_elements=["window_id", "threshold"])
        connection.execute(statement, rows)
