"""Hours in SQL, of zones whose hours do not begin with those of UTC as well."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

HOUR = timedelta(hours=1)


def hour_column(
    dialect: sa.Dialect, instant: sa.ColumnElement[Any], offset: timedelta
) -> sa.ColumnElement[Any]:
    """Select the hour of an instant at an offset from UTC; to be read by `read_hour`."""
    shift = offset % HOUR
    if dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%dT%H:00:00", instant, f"{shift.total_seconds():+.0f} seconds")
    shifted = sa.type_coerce(instant, sa.DateTime(timezone=True)) + shift
    return sa.func.date_trunc("hour", shifted, "UTC", type_=sa.DateTime(timezone=True))


def read_hour(value: Any, offset: timedelta) -> datetime:
    """Return when an hour begins, as an instant in UTC."""
    begins = datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value
    shifted: datetime = begins.astimezone(UTC) - offset % HOUR
    return shifted
