"""A report over time as series: a value for every period of it, and the small ones as one.

Reports leave out what is nothing; a chart needs its zeros. Sums are added up here and nothing is left out, so
that the series of a chart have the total of the report.
"""

from collections.abc import Iterable
from heapq import nsmallest
from typing import NamedTuple

import msgspec

from meter.core.period import Period, Unit, periods
from meter.core.reports import Report, Row
from meter.core.rollup import Sums

SERIES_MAX = 8
MEASURES = {"cost": "cost", "tokens": "total_tokens", "requests": "requests"}


class Serie(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the whole over time."""

    name: str
    """Of a team, a model, ...; empty stands for all that is not shown by itself."""
    id: str
    """What a filter by it names: the id of a key, else its name."""
    merged: int
    """How many were added up to it; 1 unless it stands for several."""
    sums: tuple[Sums, ...]
    """One for each period."""
    total: Sums


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A report over time."""

    periods: tuple[Period, ...]
    series: tuple[Serie, ...]
    """The largest first."""
    by_period: tuple[Sums, ...]
    """The sums of all series, for each period."""


class Rest(NamedTuple):
    """What a report was not asked for, so that it would not have a row for everything."""

    whole: Report
    """The same question for all, grouped by the unit alone."""
    merged: int
    """How many are not in the report."""


def largest(report: Report, measure: str) -> list[str] | None:
    """Return the ids of the keys that get a series of their own; `None`: all of them do."""
    if len(report.rows) <= SERIES_MAX:
        return None
    rows = nsmallest(
        SERIES_MAX - 1, report.rows, key=lambda row: (-size(row.sums, measure), *row.group.values())
    )
    return [row.group["key_id"] for row in rows]


def series(report: Report, unit: Unit, stack: str, measure: str, rest: Rest | None = None) -> Series:
    """Arrange a report that is grouped by `unit` and `stack`."""
    question = report.question
    found = tuple(periods(question.since, question.until, unit, question.tz))
    place = {period.label: at for at, period in enumerate(found)}
    nothing = Sums()
    grouped: dict[tuple[str, str], list[Sums]] = {}
    for row in report.rows:
        line = grouped.setdefault(_identity(row, stack), [nothing] * len(found))
        line[place[row.group[unit]]] = row.sums
    shown = [_serie(*identity, line) for identity, line in grouped.items()]
    shown.sort(key=lambda serie: (-size(serie.total, measure), serie.name, serie.id))
    if rest is not None:
        shown.append(_rest(rest, unit, place, shown))
    elif len(shown) > SERIES_MAX:
        shown = [*shown[: SERIES_MAX - 1], _merged(shown[SERIES_MAX - 1 :])]
    by_period = tuple(total(serie.sums[at] for serie in shown) for at in range(len(found)))
    return Series(periods=found, series=tuple(shown), by_period=by_period)


def size(sums: Sums, measure: str) -> int:
    """Return how much of a measure there is: picodollars, tokens or requests."""
    value: int = getattr(sums, MEASURES[measure])
    return value


def total(sums: Iterable[Sums]) -> Sums:
    """Add sums up, all their fields at once: a chart of many teams has thousands to add."""
    fields = zip(*map(msgspec.structs.astuple, sums), strict=True)
    return Sums(*map(sum, fields))


def _identity(row: Row, stack: str) -> tuple[str, str]:
    name = row.group[stack]
    return name, row.group["key_id"] if stack == "key" else name


def _serie(name: str, identity: str, line: list[Sums]) -> Serie:
    return Serie(name=name, id=identity, merged=1, sums=tuple(line), total=total(line))


def _rest(rest: Rest, unit: Unit, place: dict[str, int], shown: list[Serie]) -> Serie:
    """Take what is shown away from the whole."""
    lines = [Sums() for _ in place]
    for row in rest.whole.rows:
        lines[place[row.group[unit]]] = row.sums
    sums = [_less(line, total(serie.sums[at] for serie in shown)) for at, line in enumerate(lines)]
    return Serie(name="", id="", merged=rest.merged, sums=tuple(sums), total=total(sums))


def _less(whole: Sums, part: Sums) -> Sums:
    pairs = zip(msgspec.structs.astuple(whole), msgspec.structs.astuple(part), strict=True)
    return Sums(*(each - taken for each, taken in pairs))


def _merged(small: list[Serie]) -> Serie:
    lines = [total(sums) for sums in zip(*(serie.sums for serie in small), strict=True)]
    return Serie(name="", id="", merged=len(small), sums=tuple(lines), total=total(lines))
