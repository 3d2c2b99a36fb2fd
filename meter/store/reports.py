"""Reports in SQL: sums over the rollup, or over the ledger where the rollup does not tell.

A question is cut into stretches of time, one for each of its periods, and a stretch into spans of the rollup
that cover it. Neither the number of events nor the length of a period changes how much is read for it.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice, pairwise
from math import inf
from operator import add, sub
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from meter.core.period import Period, Unit
from meter.core.reports import LEDGER_GROUPS, TIME_GROUPS, Question, Report, Row
from meter.core.rollup import TALLIES
from meter.core.stretches import Stretch, periods_at, steady, stretches
from meter.store import retention
from meter.store.covered import Cover, covers
from meter.store.database import Database
from meter.store.hours import hour_column, read_hour
from meter.store.ledger_lines import ledger_lines
from meter.store.patterns import like
from meter.store.rollup import as_sums, in_order, read_summed, summed
from meter.store.tables import ROLLUP, api_keys, teams
from meter.store.top import Top, top

ROWS_PER_FETCH = 5_000
# A row takes some kilobytes while it is in memory, and anybody with a viewer's token may ask.
ROWS_MAX = 50_000
_COLUMNS = {"team": "team_id", "key": "key_id"}
_HOUR = "hour"
_DAYS_AT_ONCE = 7

_Key = tuple[tuple[Period, ...], tuple[str, ...]]
_Found = dict[_Key, list[int]]
_Tops = dict[str, Top]


def answer(database: Database, question: Question, *, as_started: bool = False) -> Report:
    """Answer a question from one consistent state of the database.

    `as_started` counts what belongs to a closed month in that month all the same; this takes the ledger,
    and can group by `service_tier` too. Raises `ValueError` where there are too many rows to hold at once.
    """
    with database.read_long() as connection:
        _require_events(connection, question, as_started=as_started)
        asking = _Asking(connection, question, as_started=as_started, rows_max=ROWS_MAX)
        found = asking.rows()
        rows = _named(connection, question, found)
    return Report(question, rows, as_sums(asking.total, in_order(question.sums)))


class Part(NamedTuple):
    """A part of the rows of a long answer."""

    number: int
    """From 1 on."""
    parts: int
    rows: list[Row]


def parts(database: Database, question: Question) -> Iterator[Part]:
    """Answer a question a while at a time, in the order of its rows, from one state of the database.

    What is not grouped by time is one part: it has no more rows than there are keys, models, and users shown.
    """
    cuts = list(_cuts(question))
    with database.read_long() as connection:
        _require_events(connection, question, as_started=False)
        tops = _Asking(connection, question, as_started=False).tops()
        for number, (since, until) in enumerate(pairwise(cuts), 1):
            asked = msgspec.structs.replace(question, since=since, until=until)
            found = _Asking(connection, asked, as_started=False).rows(tops)
            yield Part(number, len(cuts) - 1, _named(connection, question, found))


def _require_events(connection: sa.Connection, question: Question, *, as_started: bool) -> None:
    """Raise `BeforeHorizon` for a question that would read events that have left the ledger."""
    if as_started or set(question.by) & set(LEDGER_GROUPS):
        what = "Comparing a bill reads" if as_started else "Reports by user or tag read"
        retention.require(connection, what, question.since)


def _cuts(question: Question) -> Iterator[datetime]:
    """Yield where parts begin, and the end; no row lies in two of them, as all end with its periods."""
    times, _ = _kinds(question)
    units: list[Unit] = ["day"] if _HOUR in times else times
    at_once = _DAYS_AT_ONCE if units == ["day"] and _HOUR not in times else 1
    found = stretches(question.since, question.until, units, question.tz)
    yield from islice((stretch.start for stretch in found), 0, None, at_once)
    yield question.until


class _Asking:
    """One question under way, on one connection."""

    def __init__(
        self, connection: sa.Connection, question: Question, *, as_started: bool, rows_max: float = inf
    ) -> None:
        self._connection = connection
        self._question = question
        self._as_started = as_started
        self._from_ledger = as_started or bool(set(question.by) & set(LEDGER_GROUPS))
        self._times, self._others = _kinds(question)
        self._found: _Found = {}
        self._rows_max = rows_max
        self._order = in_order(question.sums)
        self._tallies = sum(name in TALLIES for name in self._order)
        self.total = [0] * len(question.sums)

    def tops(self) -> _Tops:
        """Find out which users and tags have rows of their own."""
        return {group: self._top(group) for group in self._others if group in LEDGER_GROUPS}

    def rows(self, tops: _Tops | None = None) -> _Found:
        """Return the sums of each row by its periods and the values of its other groups."""
        question = self._question
        tops = self.tops() if tops is None else tops
        if _HOUR in self._times:
            for start, end in steady(question.since, question.until, question.tz):
                self._add_hours(start, end, tops)
        else:
            found = stretches(question.since, question.until, self._times, question.tz)
            if self._from_ledger:
                for stretch in found:
                    self._add_entries(stretch, tops)
            else:
                self._add_covers(found)
        # What was taken away again leaves rows of nothing behind.
        return {key: sums for key, sums in self._found.items() if any(sums)}

    def _top(self, group: str) -> Top:
        """Find out which values of a group have rows of their own."""
        question = self._question
        lines = ledger_lines(question.since, question.until, as_started=self._as_started)
        where = filters(self._connection, lines, question)
        return top(self._connection, lines, where, group, question.top)

    def _add_covers(self, found: Iterable[Stretch]) -> None:
        """Add stretches from the rollup, by the spans that cover them."""
        for cover in covers(self._connection.dialect, found):
            for (span, *group), sums in self._select(cover.lines, (cover.span,), {}, cover):
                for stretch, sign in cover.shares(span):
                    self._add(stretch.periods, [tuple(group)], sums, sign)

    def _add_entries(self, stretch: Stretch, tops: _Tops) -> None:
        """Add a stretch from the ledger."""
        lines = self._lines(stretch.start, stretch.end)
        for group, sums in self._select(lines, (), tops):
            self._add(stretch.periods, self._single_tags(group, tops), sums)

    def _add_hours(self, start: datetime, end: datetime, tops: _Tops) -> None:
        """Add what lies between changes of the zone's offset, by the hour in which it does."""
        tz = self._question.tz
        offset = start.astimezone(tz).utcoffset() or timedelta(0)
        lines = self._lines(start, end)
        hour = hour_column(self._connection.dialect, lines.c.bucket, offset)
        known: dict[Any, tuple[Period, ...]] = {}
        for (when, *group), sums in self._select(lines, (hour,), tops):
            periods = known.get(when)
            if periods is None:
                begins = max(read_hour(when, offset), start)
                periods = known[when] = periods_at(begins, self._times, tz)
            self._add(periods, self._single_tags(tuple(group), tops), sums)

    def _select(
        self,
        lines: sa.FromClause,
        first: tuple[sa.ColumnElement[Any], ...],
        tops: _Tops,
        cover: Cover | None = None,
    ) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
        """Select sums by the columns that come first and by the question's groups, less by its times."""
        columns = [*first, *(self._column(lines, group, tops) for group in self._others)]
        query = sa.select(*columns, *summed(lines, self._order)).group_by(*columns)
        query = query.where(filters(self._connection, lines, self._question))
        if cover is not None:
            query = query.select_from(cover.source).where(cover.where)
        width = len(columns)
        for row in self._connection.execute(query, execution_options={"yield_per": ROWS_PER_FETCH}):
            yield tuple(row[:width]), read_summed(tuple(row[width:]), self._tallies)

    def _single_tags(self, group: tuple[Any, ...], tops: _Tops) -> Iterable[tuple[Any, ...]]:
        if "tag" not in tops:
            return (group,)
        at = self._others.index("tag")
        return ((*group[:at], tag, *group[at + 1 :]) for tag in tops["tag"].tags_of(group[at]))

    def _column(self, lines: sa.FromClause, group: str, tops: _Tops) -> sa.ColumnElement[Any]:
        column = lines.c[_COLUMNS.get(group, group)]
        return tops["user"].column(column) if group == "user" else column

    def _lines(self, start: datetime, end: datetime) -> sa.FromClause:
        if self._from_ledger:
            return ledger_lines(start, end, as_started=self._as_started)
        quarters = ROLLUP["quarter"]
        return sa.select(quarters).where(quarters.c.bucket >= start, quarters.c.bucket < end).subquery()

    def _add(
        self, periods: tuple[Period, ...], groups: Iterable[tuple[Any, ...]], sums: list[int], sign: int = 1
    ) -> None:
        """Add sums to a row, or to several where an event has several tags; to the total once."""
        change = add if sign > 0 else sub
        self.total = list(map(change, self.total, sums))
        for group in groups:
            before = self._found.get((periods, group))
            if before is None and len(self._found) >= self._rows_max:
                raise ValueError(
                    f"the report has more than {self._rows_max:,} rows: ask for a shorter time or fewer "
                    "groups, or for CSV, which may have any number"
                )
            if before is None and sign > 0:
                self._found[periods, group] = sums
            else:
                self._found[periods, group] = list(map(change, before or [0] * len(sums), sums))


def filters(connection: sa.Connection, lines: sa.FromClause, question: Question) -> sa.ColumnElement[bool]:
    """Say which lines a question is about; the one place where the team of whoever asks is enforced."""
    conditions: list[sa.ColumnElement[bool]] = [sa.true()]
    if question.scope_team_id is not None:
        conditions.append(lines.c.team_id == question.scope_team_id)
    if question.team_id is not None:
        conditions.append(lines.c.team_id == question.team_id)
    if question.key_ids is not None:
        conditions.append(lines.c.key_id.in_(question.key_ids))
    if question.upstream is not None:
        conditions.append(lines.c.upstream == question.upstream)
    if question.model is not None:
        conditions.append(like(connection.dialect, lines.c.model, question.model))
    return sa.and_(*conditions)


def _kinds(question: Question) -> tuple[list[Unit], list[str]]:
    """Tell the groups that are periods from the others."""
    times = [unit for unit in TIME_GROUPS if unit in question.by]
    return times, [group for group in question.by if group not in TIME_GROUPS]


def _named(connection: sa.Connection, question: Question, found: _Found) -> list[Row]:
    """Put names in the place of ids, and the rows in order: by time, then the largest first."""
    names = {
        group: {row.id: row.name for row in connection.execute(sa.select(table.c.id, table.c.name))}
        for group, table in (("team", teams), ("key", api_keys))
        if group in question.by
    }
    times, others = _kinds(question)
    summed_in = in_order(question.sums)
    rows = []
    for (periods, values), sums in found.items():
        known: dict[str, str] = dict(zip(others, values, strict=True))
        known |= {unit: period.label for unit, period in zip(times, periods, strict=True)}
        rows.append((periods, Row(_group(question, names, known), as_sums(sums, summed_in))))
    order = [times.index(group) for group in question.by if group in times]
    rows.sort(key=lambda each: (*(each[0][at].start for at in order), *_size(each[1])))
    return [row for _, row in rows]


def _group(question: Question, names: dict[str, dict[str, str]], known: dict[str, str]) -> dict[str, str]:
    group: dict[str, str] = {}
    for name in question.by:
        value = known[name]
        group[name] = names[name].get(value, value) if name in names else value
        if name == "key":
            group["key_id"] = value
    return group


def _size(row: Row) -> tuple[object, ...]:
    """Order by size, the largest first, and by name among equals."""
    return (-row.sums.cost, -row.sums.total_tokens, *row.group.values())
