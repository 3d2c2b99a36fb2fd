"""Corrections in the ledger: entries of their own, decided under a lock, and posted like every event.

A correction has the `started_at` of the event that it corrects, so that both lie in the same partition and
are found by the same index.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from meter.core.corrections import Account, Decide, Posted, posting_time
from meter.core.events import UsageEvent, UsageSource
from meter.core.retention import check_since
from meter.store import ledger, retention
from meter.store.database import Database
from meter.store.locks import Lock, hold
from meter.store.tables import api_keys, teams, usage_events

# How many events are corrected at once: writers of SQLite, and other corrections, wait so long.
EVENTS_PER_PAGE = 1000

_corrections = usage_events.alias("corrections")


def pages(database: Database, since: datetime, until: datetime) -> Iterator[list[Account]]:
    """Yield all events of a time that used anything, with their corrections, a few at a time and in order."""
    after: UsageEvent | None = None
    while True:
        with database.read_long() as connection:
            retention.require(connection, "Rating again reads", since)
            originals = _read(connection, _originals(since, until, after))
            accounts = _accounts(connection, originals)
        if not accounts:
            return
        yield accounts
        after = accounts[-1].event


def correct(
    database: Database, accounts: Sequence[Account], decide: Decide, now: datetime
) -> list[tuple[Account, UsageEvent]]:
    """Correct events by what they cost at this moment; returns the accounts before, and the corrections.

    Raises `BeforeHorizon` where they have begun to leave the ledger meanwhile.
    """
    with database.write() as connection:
        hold(connection, Lock.CORRECTIONS)
        started = [account.event.started_at for account in accounts]
        check_since("Rating again reads", min(started), retention.horizon(connection))
        current = _accounts(connection, [account.original for account in accounts])
        needed = [made for account in current if (made := decide(account).correction) is not None]
        posted = ledger.post(database, connection, needed, posting_time(current, now))
    before = {account.event.event_id: account for account in current}
    return [(before[event.corrects_id or ""], event) for event in posted]


def find(database: Database, event_id: str) -> Account | None:
    """Return an event with its corrections; the id of one of these finds it too."""
    with database.read() as connection:
        found = _read(connection, _entry(event_id))
        if found and (corrects_id := found[0].event.corrects_id) is not None:
            found = _read(connection, _entry(corrects_id))
        return next(iter(_accounts(connection, found)), None)


def names(database: Database, event: UsageEvent) -> tuple[str, str]:
    """Return what an event's team and key are called now; what nobody knows any more keeps its id."""
    with database.read() as connection:
        team = connection.scalar(sa.select(teams.c.name).where(teams.c.id == event.team_id))
        key = connection.scalar(sa.select(api_keys.c.name).where(api_keys.c.id == event.key_id))
    return team or event.team_id, key or event.key_id


def verify(database: Database) -> list[str]:
    """Check that corrections belong to events, each by a price version of its own; a sentence a mismatch."""
    with database.read_long() as connection:
        horizon = retention.hold_ledger(connection)
        orphans = connection.execute(_orphans(horizon)).all()
        repeated = connection.execute(_repeated()).all()
    return [
        *(f"correction {event_id}: there is no event {corrects_id}" for event_id, corrects_id in orphans),
        *(
            f"event {corrects_id} is corrected {count} times by the price version {price_id}"
            for corrects_id, price_id, count in repeated
        ),
    ]


def _originals(since: datetime, until: datetime, after: UsageEvent | None) -> sa.Select[Any]:
    event = usage_events.c
    query = sa.select(usage_events).where(
        event.started_at < until,
        event.corrects_id.is_(None),
        event.usage_source != UsageSource.NONE,
    )
    if after is None:
        query = query.where(event.started_at >= since)
    else:
        later = (event.started_at > after.started_at) | (event.event_id > after.event_id)
        query = query.where(event.started_at >= after.started_at, later)
    return query.order_by(event.started_at, event.event_id).limit(EVENTS_PER_PAGE)


def _entry(event_id: str) -> sa.Select[Any]:
    return sa.select(usage_events).where(usage_events.c.event_id == str(UUID(event_id)))


def _accounts(connection: sa.Connection, originals: Sequence[Posted]) -> list[Account]:
    if not originals:
        return []
    times = [original.event.started_at for original in originals]
    ids = [original.event.event_id for original in originals]
    query = (
        sa.select(usage_events)
        .where(
            usage_events.c.started_at.between(min(times), max(times)),
            usage_events.c.corrects_id.in_(ids),
        )
        .order_by(usage_events.c.posted_at, usage_events.c.event_id)
    )
    found: dict[str | None, list[Posted]] = {}
    for entry in _read(connection, query):
        found.setdefault(entry.event.corrects_id, []).append(entry)
    return [Account(entry, tuple(found.get(entry.event.event_id, ()))) for entry in originals]


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[Posted]:
    return [Posted(ledger.read_event(row), row["posted_at"]) for row in connection.execute(query).mappings()]


def _orphans(horizon: datetime | None) -> sa.Select[Any]:
    """Find corrections without their event; one from before the horizon may have outlived it."""
    correction, original = _corrections.c, usage_events.c
    same = (
        (original.event_id == correction.corrects_id)
        & (original.started_at == correction.started_at)
        & original.corrects_id.is_(None)
    )
    return (
        sa.select(correction.event_id, correction.corrects_id)
        .select_from(_corrections.outerjoin(usage_events, same))
        .where(
            correction.corrects_id.is_not(None),
            original.event_id.is_(None),
            sa.true() if horizon is None else correction.started_at >= horizon,
        )
        .order_by(correction.event_id)
    )


def _repeated() -> sa.Select[Any]:
    correction = usage_events.c
    count = sa.func.count()
    return (
        sa.select(correction.corrects_id, correction.price_id, count)
        .where(correction.corrects_id.is_not(None))
        .group_by(correction.corrects_id, correction.price_id)
        .having(count > 1)
        .order_by(correction.corrects_id)
    )
