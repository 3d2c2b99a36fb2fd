"""What spending comes to if it goes on as it did: when a limit is reached, and how much it is in the end."""

from datetime import datetime, timedelta
from typing import NamedTuple

_SECOND = timedelta(seconds=1)
# Before a fiftieth of a window has passed, a rate says nothing of the rest.
_PASSED_MIN = 50


class Forecast(NamedTuple):
    """The rest of a window, at the rate of what has passed of it."""

    projected: int
    """The total at the window's end, in the unit of what was spent."""
    reached_at: datetime | None
    """When the limit is reached; `None`: not within the window, or there is no limit."""


def forecast(spent: int, limit: int | None, start: datetime, end: datetime, now: datetime) -> Forecast:
    """Project what was spent since `start` on to `end`; whole numbers, so that no digit is invented.

    A limit that has been reached already was reached now, as nobody knows when.
    """
    passed = max(_seconds(start, min(now, end)), 0)
    whole = max(_seconds(start, end), 0)
    projected = spent if passed == 0 or now >= end else spent * whole // passed
    if limit is None:
        return Forecast(projected, None)
    if spent >= limit:
        return Forecast(projected, min(now, end))
    if passed == 0 or spent <= 0 or projected < limit:
        return Forecast(projected, None)
    return Forecast(projected, start + timedelta(seconds=-(-limit * passed // spent)))


def outlook(spent: int, limit: int, start: datetime, end: datetime | None, now: datetime) -> Forecast | None:
    """Project what was spent in a window, if it ends, and if enough of it has passed to tell."""
    if end is None or (now - start) * _PASSED_MIN < end - start:
        return None
    return forecast(spent, limit, start, end, now)


def _seconds(start: datetime, end: datetime) -> int:
    return (end - start) // _SECOND
