"""Months that are closed: what comes to them later counts in the month in which it is posted."""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import msgspec

from meter.core.events import UsageEvent
from meter.core.period import Period, period_of

_WRITTEN = re.compile(r"\d{4}-\d{2}", re.ASCII)


class ClosedMonth(msgspec.Struct, frozen=True):
    """A month in UTC that is closed."""

    month: datetime
    """Its first instant."""
    closed_at: datetime
    closed_by: str

    @property
    def label(self) -> str:
        """The month as it is written."""
        return f"{self.month:%Y-%m}"


def parse_month(text: str) -> Period:
    """Read `2026-11` as the month in UTC."""
    fault = f"not a month: {text!r} (use 2026-11)"
    if not _WRITTEN.fullmatch(text):
        raise ValueError(fault)
    try:
        return period_of(datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC), "month", UTC)
    except (ValueError, OverflowError):
        raise ValueError(fault) from None


def closable(text: str, now: datetime) -> Period:
    """Read a month that may be closed; raises `ValueError` where it is not over."""
    month = parse_month(text)
    if now < month.end:
        raise ValueError(f"{month.label} is not over: it ends at {month.end:%Y-%m-%dT%H:%M}Z")
    return month


def counted(
    events: Iterable[UsageEvent],
    closed: Collection[datetime],
    posted_at: datetime,
    horizon: datetime | None = None,
) -> list[UsageEvent]:
    """Count in the month of their posting what belongs to a closed one, late events and corrections alike.

    Months before the ledger's horizon are closed too.
    """
    if not closed and horizon is None:
        return list(events)
    return [
        msgspec.structs.replace(event, counted_at=posted_at)
        if month_of(event) in closed or (horizon is not None and event.started_at < horizon)
        else event
        for event in events
    ]


def month_of(event: UsageEvent) -> datetime:
    """Return the first instant of the month, in UTC, in which an event started."""
    return event.started_at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
