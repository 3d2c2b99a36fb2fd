"""How a report's time is cut: into stretches that lie in one period of each kind that it is grouped by."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from meter.core.period import BUCKET, Period, Unit, bucket, period_of


class Stretch(NamedTuple):
    """A stretch of time, `[start, end)`, and the periods that hold it."""

    periods: tuple[Period, ...]
    """One of each unit, in the order of the units."""
    start: datetime
    end: datetime


def stretches(since: datetime, until: datetime, units: Sequence[Unit], tz: tzinfo) -> Iterator[Stretch]:
    """Cut `[since, until)` where any period ends; without units it is one stretch."""
    at = since
    while at < until:
        periods = periods_at(at, units, tz)
        end = min([until, *(period.end for period in periods)])
        yield Stretch(periods, at, end)
        at = end


def periods_at(instant: datetime, units: Sequence[Unit], tz: tzinfo) -> tuple[Period, ...]:
    """Return the periods that hold an instant, in the order of the units."""
    return tuple(period_of(instant, unit, tz) for unit in units)


def steady(since: datetime, until: datetime, tz: tzinfo) -> Iterator[tuple[datetime, datetime]]:
    """Cut `[since, until)` where the zone's offset from UTC changes."""
    start = at = since.astimezone(UTC)
    while at < until:
        later = min(at + timedelta(days=1), until)
        if later.astimezone(tz).utcoffset() != at.astimezone(tz).utcoffset():
            change = _change(at, later, tz)
            yield start, change
            start = change
        at = later
    if start < until:
        yield start, until


def _change(before: datetime, after: datetime, tz: tzinfo) -> datetime:
    """Find the quarter hour at which the offset changes; zones change theirs at most once in a day."""
    offset = before.astimezone(tz).utcoffset()
    at = bucket(before) + BUCKET
    while at < after and at.astimezone(tz).utcoffset() == offset:
        at += BUCKET
    return min(at, after)


def quarter_end(instant: datetime) -> datetime:
    """Return the end of the quarter hour that an instant lies in, or the instant where one ends there."""
    start = bucket(instant)
    return start if start == instant else start + BUCKET
