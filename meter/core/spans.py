"""How a stretch of time is covered by months, days and quarter hours in UTC, of which sums are kept.

Sums add up, and can be taken away again: November in Berlin is November in UTC, and the hour before it,
without its last hour. So a report reads the coarsest sums that come near, and mends their edges.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from meter.core.period import BUCKET, bucket

Grain = Literal["month", "day", "quarter"]

GRAINS: tuple[Grain, ...] = ("month", "day", "quarter")


class Span(NamedTuple):
    """A stretch of time, `[start, end)`, of whole grains."""

    grain: Grain
    start: datetime
    end: datetime
    sign: int
    """1: its sums are added; -1: they are taken away."""


def floor(instant: datetime, grain: Grain) -> datetime:
    """Return the start of the grain that holds an instant."""
    in_utc = instant.astimezone(UTC)
    if grain == "quarter":
        return bucket(in_utc)
    day = in_utc.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if grain == "day" else day.replace(day=1)


def next_grain(start: datetime, grain: Grain) -> datetime:
    """Return the start of the grain after the one that begins here."""
    step = {"month": timedelta(days=32), "day": timedelta(days=1), "quarter": BUCKET}[grain]
    return floor(start + step, grain)


def spans(start: datetime, end: datetime) -> list[Span]:
    """Cover `[start, end)` with as few grains as come near; a quarter that is touched is whole."""
    return _cover(floor(start, "quarter"), _ceiling(end, "quarter"), GRAINS, 1)


def _cover(start: datetime, end: datetime, grains: tuple[Grain, ...], sign: int) -> list[Span]:
    if start >= end:
        return []
    grain, *finer = grains
    if not finer:
        return [Span(grain, start, end, sign)]
    first, last = _nearest(start, grain), _nearest(end, grain)
    # Where mending the edges reads more than the stretch itself has, a coarser grain is a detour.
    if first >= last or abs(start - first) + abs(end - last) >= end - start:
        return _cover(start, end, tuple(finer), sign)
    edges = _between(start, first, tuple(finer), sign) + _between(last, end, tuple(finer), sign)
    return [Span(grain, first, last, sign), *edges]


def _between(start: datetime, end: datetime, grains: tuple[Grain, ...], sign: int) -> list[Span]:
    """Cover what lies between two instants, or take it away where they stand the other way round."""
    return _cover(start, end, grains, sign) if start <= end else _cover(end, start, grains, -sign)


def _nearest(instant: datetime, grain: Grain) -> datetime:
    before, after = floor(instant, grain), _ceiling(instant, grain)
    return before if instant - before <= after - instant else after


def _ceiling(instant: datetime, grain: Grain) -> datetime:
    before = floor(instant, grain)
    return before if before == instant else next_grain(before, grain)
