"""Periods in a time zone: hours, days, weeks, months.

A period is half open, `[start, end)`, and its bounds are instants in UTC. They are worked out on the wall
clock of the zone, so that a day across a change of summer time has 23 or 25 hours. Every zone in use starts
its hours on a quarter of a UTC hour, which is why the rollup keeps quarter hours.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

Unit = Literal["hour", "day", "week", "month"]

BUCKET = timedelta(minutes=15)


class Period(msgspec.Struct, frozen=True):
    """A named stretch of time, `[start, end)`, in UTC."""

    label: str
    start: datetime
    end: datetime


def zone(name: str) -> tzinfo:
    """Look up an IANA time zone, such as `Europe/Berlin`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}: use an IANA name such as Europe/Berlin") from None


def bucket(instant: datetime) -> datetime:
    """Return the start of the quarter hour that holds an instant."""
    return instant.replace(minute=instant.minute - instant.minute % 15, second=0, microsecond=0)


def month_start(instant: datetime, tz: tzinfo) -> datetime:
    """Return when the month that holds `instant` began in `tz`."""
    return period_of(instant, "month", tz).start


def period_of(instant: datetime, unit: Unit, tz: tzinfo) -> Period:
    """Return the period that holds an instant."""
    if unit == "hour":
        return _hour(instant, tz)
    first = _floor(instant.astimezone(tz), unit)
    start = first.replace(tzinfo=tz).astimezone(UTC)
    end = _next(first, unit).replace(tzinfo=tz).astimezone(UTC)
    return Period(_label(first, unit), start, end)


def periods(since: datetime, until: datetime, unit: Unit, tz: tzinfo) -> Iterator[Period]:
    """Yield the periods that touch `[since, until)`, in order, without gaps."""
    at = since
    while at < until:
        period = period_of(at, unit, tz)
        yield period
        at = period.end


def parse_instant(text: str, tz: tzinfo) -> datetime:
    """Read `2026-11-23`, `2026-11` or an ISO 8601 time; without an offset it is meant in `tz`."""
    month_form = "YYYY-MM"
    try:
        parsed = datetime.fromisoformat(f"{text}-01" if len(text) == len(month_form) else text)
        aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=tz)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"not a date: {text!r} (use 2026-11-23 or 2026-11-23T14:00)") from None


def parse_duration(text: str) -> timedelta:
    """Read `90d`, `12h`, `30m` or `2w`."""
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    try:
        if unit in units and number.isdecimal() and int(number):
            return timedelta(**{units[unit]: int(number)})
    except OverflowError:
        pass  # Longer than any calendar.
    raise ValueError(f"not a duration: {text!r} (use 90d, 12h or 30m)")


def after(instant: datetime, duration: str) -> datetime:
    """Return the instant that lies a written duration, such as `90d`, after another."""
    try:
        return instant + parse_duration(duration)
    except OverflowError:
        raise ValueError(f"{duration!r} is later than any calendar goes") from None


def _hour(instant: datetime, tz: tzinfo) -> Period:
    # Hours are counted in UTC: where clocks go back, the repeated hour is a period of its own.
    local = instant.astimezone(tz)
    into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    start = instant.astimezone(UTC) - into
    end = start + timedelta(hours=1)
    offset = local.utcoffset()
    # Where clocks jump by half an hour, as on Lord Howe Island, the jump cuts an hour in two.
    while start.astimezone(tz).utcoffset() != offset:
        start += BUCKET
    while (end - BUCKET).astimezone(tz).utcoffset() != offset:
        end -= BUCKET
    label = start.astimezone(tz).isoformat(timespec="minutes")
    return Period(label, start, end)


def _floor(local: datetime, unit: Unit) -> datetime:
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 (wall clock; the caller adds the zone)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _next(first: datetime, unit: Unit) -> datetime:
    if unit == "month":
        return (first + timedelta(days=32)).replace(day=1)
    return first + timedelta(days=7 if unit == "week" else 1)


def _label(first: datetime, unit: Unit) -> str:
    return first.strftime("%Y-%m" if unit == "month" else "%Y-%m-%d")
