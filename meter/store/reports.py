"""Reports in SQL: sums over the rollup, or over the ledger where the rollup does not tell."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

import msgspec
import sqlalchemy as sa

from meter.core.events import NOT_FAILED, UsageSource
from meter.core.period import Period, Unit, periods
from meter.core.reports import LEDGER_GROUPS, TIME_GROUPS, Question, Report, Row
from meter.core.rollup import COUNTS, Sums
from meter.store.database import Database
from meter.store.tables import UtcDateTime, api_keys, teams, usage_15m, usage_events

# SQLite's SUM overflows past 2**63, which is 9.2 million USD: amounts are summed in two parts.
_AMOUNTS = tuple(name for name in COUNTS if "cost" in name)
_TALLIES = tuple(name for name in COUNTS if name not in _AMOUNTS)
_NOBODY = ""
_COST_PART = 10**6
# Three parameters each; PostgreSQL takes 65,535 in all, SQLite at least 32,766.
PERIODS_IN_A_STATEMENT_MAX = 5_000


def answer(database: Database, question: Question, *, as_started: bool = False) -> Report:
    """Answer a question from one consistent state of the database.

    `as_started` counts what belongs to a closed month in that month all the same; this takes the ledger,
    and can group by `service_tier` too.
    """
    from_ledger = as_started or set(question.by) & set(LEDGER_GROUPS)
    source = _ledger_lines(as_started=as_started) if from_ledger else sa.select(usage_15m).subquery()
    with database.read_long() as connection:
        total = (
            connection.execute(sa.select(*_sums(source)).where(_within(source, question))).mappings().one()
        )
        rows = [
            row
            for part in _parts(question)
            for row in connection.execute(_grouped(source, part).where(_within(source, part))).mappings()
        ]
    return Report(question, _rows(question, rows), _read_sums(total))


def _parts(question: Question) -> Iterator[Question]:
    """Cut a long question by its shortest periods, because a statement takes so many parameters only."""
    unit = next((unit for unit in TIME_GROUPS if unit in question.by), None)
    found = (
        [] if unit is None else list(periods(question.since, question.until, cast("Unit", unit), question.tz))
    )
    if len(found) <= PERIODS_IN_A_STATEMENT_MAX:
        yield question
        return
    for at in range(0, len(found), PERIODS_IN_A_STATEMENT_MAX):
        part = found[at : at + PERIODS_IN_A_STATEMENT_MAX]
        since, until = max(part[0].start, question.since), min(part[-1].end, question.until)
        yield msgspec.structs.replace(question, since=since, until=until)


def _periods_of(question: Question, unit: str) -> list[Period]:
    return list(periods(question.since, question.until, cast("Unit", unit), question.tz))


def _within(source: sa.Subquery, question: Question) -> sa.ColumnElement[bool]:
    return (source.c.bucket >= question.since) & (source.c.bucket < question.until)


def _grouped(source: sa.Subquery, question: Question) -> sa.Select[Any]:
    columns: list[sa.ColumnElement[Any]] = []
    joined: sa.FromClause = source
    for group in question.by:
        if group in TIME_GROUPS:
            table = _periods_table(question, group)
            at_time = (source.c.bucket >= table.c.start) & (source.c.bucket < table.c.end)
            joined = joined.join(table, at_time)
            columns.append(table.c.label.label(group))
        elif group == "team":
            joined = joined.outerjoin(teams, teams.c.id == source.c.team_id)
            columns.append(sa.func.coalesce(teams.c.name, source.c.team_id).label("team"))
        elif group == "key":
            joined = joined.outerjoin(api_keys, api_keys.c.id == source.c.key_id)
            columns.append(sa.func.coalesce(api_keys.c.name, source.c.key_id).label("key"))
            columns.append(source.c.key_id.label("key_id"))
        else:
            columns.append(source.c[group].label(group))
    return sa.select(*columns, *_sums(source)).select_from(joined).group_by(*columns)


def _periods_table(question: Question, unit: str) -> sa.CTE:
    table = sa.values(
        sa.column("label", sa.String),
        sa.column("start", UtcDateTime),
        sa.column("end", UtcDateTime),
        name=f"each_{unit}",
    )
    rows = [(period.label, period.start, period.end) for period in _periods_of(question, unit)]
    return table.data(rows).cte()


def _sums(source: sa.Subquery) -> list[sa.ColumnElement[Any]]:
    sums: list[sa.ColumnElement[Any]] = [sa.func.sum(source.c[name]).label(name) for name in _TALLIES]
    for name in _AMOUNTS:
        sums.append(sa.func.sum(source.c[name] // _COST_PART).label(f"{name}_whole"))
        sums.append(sa.func.sum(source.c[name] % _COST_PART).label(f"{name}_rest"))
    return sums


def _read_sums(row: sa.RowMapping) -> Sums:
    tallies = {name: int(row[name] or 0) for name in _TALLIES}
    amounts = {
        name: int(row[f"{name}_whole"] or 0) * _COST_PART + int(row[f"{name}_rest"] or 0) for name in _AMOUNTS
    }
    return Sums(**tallies, **amounts)


def _rows(question: Question, found: Iterable[sa.RowMapping]) -> list[Row]:
    names = [name for group in question.by for name in ((group, "key_id") if group == "key" else (group,))]
    rows = [Row({name: row[name] for name in names}, _read_sums(row)) for row in found]
    if "tag" in question.by:
        rows = _by_single_tag(rows)
    times = [group for group in question.by if group in TIME_GROUPS]
    order = _order_of_periods(question)
    return sorted(rows, key=lambda row: (*(order[row.group[name]] for name in times), *_size(row)))


def _order_of_periods(question: Question) -> dict[str, datetime]:
    """Say when each period begins; labels don't sort, because an hour may come twice."""
    return {
        period.label: period.start
        for unit in TIME_GROUPS
        if unit in question.by
        for period in _periods_of(question, unit)
    }


def _size(row: Row) -> tuple[object, ...]:
    """Order by size, the largest first, and by name among equals."""
    return (-row.sums.cost, -row.sums.total_tokens, *row.group.values())


def _by_single_tag(rows: Iterable[Row]) -> list[Row]:
    """Split rows of a set of tags into rows of one tag; an event counts in the row of each of its tags."""
    added: dict[tuple[str, ...], Row] = {}
    for row in rows:
        for tag in json.loads(row.group["tag"]) or [_NOBODY]:
            group = row.group | {"tag": tag}
            key = tuple(group.values())
            earlier = added.get(key)
            added[key] = Row(group, row.sums if earlier is None else earlier.sums.plus(row.sums))
    return list(added.values())


def _ledger_lines(*, as_started: bool = False) -> sa.Subquery:
    """Show every entry as the line of the rollup that it would be, with its end user, tags and tier."""
    event = usage_events.c
    counted = event.started_at if as_started else sa.func.coalesce(event.counted_at, event.started_at)
    return sa.select(
        counted.label("bucket"),
        event.team_id,
        event.key_id,
        event.upstream,
        sa.func.coalesce(event.model_served, event.model_requested).label("model"),
        sa.func.coalesce(event.end_user, _NOBODY).label("user"),
        sa.cast(event.tags, sa.Text).label("tag"),
        sa.func.coalesce(event.service_tier, _NOBODY).label("service_tier"),
        *(value.label(name) for name, value in _counted().items()),
    ).subquery()


def _counted() -> dict[str, sa.ColumnElement[Any]]:
    """Say in SQL what `meter.core.rollup.Sums.add` says of one entry."""
    event = usage_events.c
    tokens = event.prompt_tokens + event.completion_tokens
    is_attempt = event.corrects_id.is_(None)
    estimated = event.usage_source == UsageSource.ESTIMATED
    invalid = event.usage_source == UsageSource.INVALID
    compared = event.cost.is_not(None) & event.upstream_cost.is_not(None)
    late = event.counted_at.is_not(None)
    cost = sa.func.coalesce(event.cost, 0)

    def attempts(condition: sa.ColumnElement[bool], value: Any = 1) -> sa.ColumnElement[Any]:
        return sa.case((is_attempt & condition, value), else_=0)

    def unpriced(attempt: Any, priced_by_correction: Any) -> sa.ColumnElement[Any]:
        return sa.case(
            (is_attempt & event.cost.is_(None), attempt),
            (event.priced_tokens.is_not(None), -priced_by_correction),
            else_=0,
        )

    amounts = {
        "cost": cost,
        "upstream_cost": attempts(sa.true(), sa.func.coalesce(event.upstream_cost, 0)),
        "compared_cost": sa.case((compared, event.cost), else_=0),
        "compared_upstream_cost": sa.case((compared, event.upstream_cost), else_=0),
        "correction_cost": sa.case((late, cost), else_=0),
    }
    tallies = {
        "requests": attempts(sa.true()),
        "errors": attempts(event.outcome.not_in(NOT_FAILED)),
        "estimated_requests": attempts(estimated),
        "estimated_tokens": attempts(estimated, tokens),
        "invalid_requests": attempts(invalid),
        "invalid_tokens": attempts(invalid, tokens),
        "unpriced_requests": unpriced(1, sa.literal(1)),
        "unpriced_tokens": unpriced(tokens, event.priced_tokens),
        "corrections": sa.case((late, 1), else_=0),
    }
    # A correction has no tokens, so that these need no condition.
    return amounts | tallies | {name: event[name] for name in COUNTS if name not in amounts | tallies}
