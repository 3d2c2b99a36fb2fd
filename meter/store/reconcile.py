"""What the ledger has of the days and models of a bill."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.core.reconcile import Recorded
from meter.core.reports import Question
from meter.store import reports, retention
from meter.store.database import Database
from meter.store.ledger import EVENTS_PER_FETCH, read_event
from meter.store.tables import closed_months, usage_events


def recorded(
    database: Database, question: Question, *, upstream: str | None, by_tier: bool
) -> tuple[list[Recorded], set[str]]:
    """Return what was used by day and model, and the upstreams that it is from; the question is about when.

    The rollup tells, unless tiers are asked for, a month is closed, or events have left the ledger: what is
    late for a closed month counts in another one there, while a provider bills it on its day. Days from
    before the ledger's horizon are refused.
    """
    from_ledger = by_tier or _any_closed(database, question.until)
    by = ("day", "model", "upstream", *(("service_tier",) if by_tier else ()))
    asked = Question(by=by, since=question.since, until=question.until, tz=question.tz)
    found = reports.answer(database, asked, as_started=from_ledger).rows
    lines = [
        Recorded(row.group["day"], row.group["model"], row.sums, row.group.get("service_tier"))
        for row in found
        if upstream in {None, row.group["upstream"]}
    ]
    return lines, {row.group["upstream"] for row in found}


def attempts(
    database: Database, since: datetime, until: datetime, *, models: Sequence[str], upstream: str | None
) -> Iterator[UsageEvent]:
    """Yield the attempts of some models that began in a stretch of time."""
    event = usage_events.c
    query = sa.select(usage_events).where(
        event.started_at >= since,
        event.started_at < until,
        event.corrects_id.is_(None),
        sa.func.coalesce(event.model_served, event.model_requested).in_(models),
        *([] if upstream is None else [event.upstream == upstream]),
    )
    with database.read_long() as connection:
        retention.require(connection, "Comparing a bill reads", since)
        for row in connection.execute(query.execution_options(yield_per=EVENTS_PER_FETCH)).mappings():
            yield read_event(row)


def _any_closed(database: Database, until: datetime) -> bool:
    with database.read() as connection:
        query = sa.select(closed_months.c.month).where(closed_months.c.month < until).limit(1)
        return connection.scalar(query) is not None or retention.horizon(connection) is not None
