"""The ledger, seen as the lines of the rollup that its entries would be: for what only the ledger tells."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from meter.core.events import NOT_FAILED, UsageSource
from meter.core.rollup import COUNTS
from meter.store.tables import usage_events

NOBODY = ""


def ledger_lines(start: datetime, end: datetime, *, as_started: bool = False) -> sa.Subquery:
    """Show every entry that counts in `[start, end)` as a line of its own, with its end user, tags and tier.

    `as_started` counts what belongs to a closed month in that month all the same.
    """
    event = usage_events.c
    in_time = (event.started_at >= start) & (event.started_at < end)
    if as_started:
        return _lines(event.started_at, in_time).subquery()
    # Apart, so that either finds its index; the second are few.
    late = (event.counted_at >= start) & (event.counted_at < end)
    return sa.union_all(
        _lines(event.started_at, in_time & event.counted_at.is_(None)), _lines(event.counted_at, late)
    ).subquery()


def _lines(counted: sa.ColumnElement[datetime], where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    event = usage_events.c
    return sa.select(
        counted.label("bucket"),
        event.team_id,
        event.key_id,
        event.upstream,
        sa.func.coalesce(event.model_served, event.model_requested).label("model"),
        sa.func.coalesce(event.end_user, NOBODY).label("user"),
        sa.cast(event.tags, sa.Text).label("tag"),
        sa.func.coalesce(event.service_tier, NOBODY).label("service_tier"),
        *(value.label(name) for name, value in _counted().items()),
    ).where(where)


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
