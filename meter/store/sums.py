"""What a budget's owner has spent within a stretch of time, and how long answers were, by the ledger."""

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

from meter.core.budgets import Budget, Measure, OwnerKind, Span
from meter.core.errors import InvalidRequest
from meter.store import retention
from meter.store.database import Database
from meter.store.tables import usage_15m, usage_events

# SQLite's SUM overflows past 2**63: amounts are summed in two parts.
_PART = 10**6


def spent_in(connection: sa.Connection, budget: Budget, span: Span) -> int:
    """Sum what counts for a budget in a window of its own, whose bounds are quarters of an hour."""
    if budget.model:
        if not summable(budget, span, retention.horizon(connection)):
            raise InvalidRequest(
                f"The budget of {budget.whose} would begin with events that have left the ledger "
                "('meter retention'): set one of a period, or one for all models.",
                param="period",
            )
        return _of_models(connection, budget, span)
    events = usage_events.c
    in_rollup = _within(usage_15m.c.bucket, span)
    # What came of closed months is in the rollup where it counts, which is not when it started.
    strangers = _within(events.counted_at, span)
    absent = events.counted_at.is_not(None) & _within(events.started_at, span)
    parts = (
        _signed(1, _of_line(budget.measure), in_rollup & _owned(usage_15m, budget)),
        _signed(-1, _of_entry(budget.measure), strangers & _owned(usage_events, budget)),
        _signed(1, _of_entry(budget.measure), absent & _owned(usage_events, budget)),
    )
    # One statement sees one state of the ledger; between two of them, somebody may commit.
    rows = connection.execute(sa.union_all(*parts)).all()
    return sum(row.sign * _whole(row) for row in rows)


def summable(budget: Budget, span: Span, horizon: datetime | None) -> bool:
    """Say whether the database still tells what counts in a window.

    For ever and any model it does: what came of closed months counts in either place.
    """
    return horizon is None or span.start >= horizon or (span.end is None and not budget.model)


def usual_completions(database: Database, since: datetime, pairs_max: int) -> dict[tuple[str, str], float]:
    """Return the average completion tokens of answers, by the ids of keys and models, the busiest first."""
    columns = usage_15m.c
    answered = sa.func.sum(columns.requests - columns.errors)
    query = (
        sa.select(columns.key_id, columns.model, sa.func.sum(columns.completion_tokens), answered)
        .where(columns.bucket >= since)
        .group_by(columns.key_id, columns.model)
        .having(answered > 0)
        .order_by(answered.desc())
        .limit(pairs_max)
    )
    with database.read_long() as connection:
        rows = connection.execute(query).all()
    return {(key_id, model): float(tokens / answers) for key_id, model, tokens, answers in rows}


def _of_models(connection: sa.Connection, budget: Budget, span: Span) -> int:
    """Sum by requested models, which the rollup does not keep apart."""
    model = usage_events.c.model_requested
    value = _of_entry(budget.measure)
    where = _within(usage_events.c.started_at, span) & _owned(usage_events, budget)
    query = sa.select(model, *_parts(value)).where(where).group_by(model)
    rows = connection.execute(query).all()
    return sum(_whole(row) for row in rows if fnmatchcase(row.model_requested, budget.model))


def _within(instant: sa.ColumnElement[Any], span: Span) -> sa.ColumnElement[bool]:
    since = instant >= span.start
    return since if span.end is None else since & (instant < span.end)


def _owned(table: sa.Table, budget: Budget) -> sa.ColumnElement[bool]:
    owners = {OwnerKind.TEAM: table.c.team_id, OwnerKind.KEY: table.c.key_id}
    column = owners.get(budget.owner_kind)
    return sa.true() if column is None else column.in_((budget.owner_id, *budget.successors))


def _of_line(measure: Measure) -> sa.ColumnElement[int]:
    columns = usage_15m.c
    tokens = columns.prompt_tokens + columns.completion_tokens
    return {Measure.COST: columns.cost, Measure.TOKENS: tokens, Measure.REQUESTS: columns.requests}[measure]


def _of_entry(measure: Measure) -> sa.ColumnElement[int]:
    columns = usage_events.c
    tokens = columns.prompt_tokens + columns.completion_tokens
    requests = sa.case((columns.corrects_id.is_(None), 1), else_=0)
    cost = sa.func.coalesce(columns.cost, 0)
    return {Measure.COST: cost, Measure.TOKENS: tokens, Measure.REQUESTS: requests}[measure]


def _signed(sign: int, value: sa.ColumnElement[int], where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(sa.literal(sign).label("sign"), *_parts(value)).where(where)


def _parts(value: sa.ColumnElement[int]) -> tuple[sa.ColumnElement[Any], ...]:
    return sa.func.sum(value // _PART).label("whole"), sa.func.sum(value % _PART).label("rest")


def _whole(row: sa.Row[Any]) -> int:
    return int(row.whole or 0) * _PART + int(row.rest or 0)
