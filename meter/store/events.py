"""Events to look at: one, or a list a page at a time, never more of the ledger than an index leads to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from meter.core.access import Scope
from meter.core.errors import NotFound
from meter.core.events import Listed, Place, Wanted
from meter.core.retention import label
from meter.store import retention
from meter.store import teams as teams_store
from meter.store.database import Database
from meter.store.ledger import read_event
from meter.store.scope import within
from meter.store.tables import api_keys, teams, usage_events

# A page of what is seldom ends early rather than searching the whole ledger; the next one goes on from there.
EXAMINED_MAX = 20_000
_FIRST_ID = str(UUID(int=0))

_NAMED = (
    sa.select(usage_events, teams.c.name.label("team_name"), api_keys.c.name.label("key_name"))
    .outerjoin(teams, teams.c.id == usage_events.c.team_id)
    .outerjoin(api_keys, api_keys.c.id == usage_events.c.key_id)
)
_NEWEST_FIRST = (usage_events.c.started_at.desc(), usage_events.c.event_id.desc())


def find(database: Database, event_id: str, scope: Scope) -> list[Listed]:
    """Return an event and then its corrections; raises `NotFound` for one out of scope too."""
    event = usage_events.c
    exact = _exact(event_id)
    with database.read() as connection:
        query = _NAMED.where(event.event_id == exact, within(scope, event.team_id))
        row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(_absent(event_id, retention.horizon(connection)), param="event_id")
        # A correction bears the start of what it corrects, by which it is found.
        of_it = (event.started_at == row["started_at"]) & (event.corrects_id == exact)
        corrections = connection.execute(_NAMED.where(of_it).order_by(event.posted_at)).mappings().all()
    return [_listed(each) for each in (row, *corrections)]


def page(
    database: Database, wanted: Wanted, scope: Scope, *, limit: int
) -> tuple[list[Listed], Place | None]:
    """Return the newest events that are wanted, and where the next page begins; `None` is the end."""
    team_id = None if wanted.team is None else teams_store.find(database, wanted.team, scope).id
    with database.read_long() as connection:
        key_ids = None if wanted.key is None else _key_ids(connection, wanted.key, scope)
        near = _near(wanted, key_ids)
        narrow = [*_narrow(wanted, team_id), within(scope, usage_events.c.team_id)]
        oldest = connection.scalar(oldest_examined(near))
        found = connection.execute(listing(near, narrow, oldest, limit + 1)).mappings().all()
    shown = [_listed(row) for row in found[:limit]]
    if len(found) > limit:
        last = shown[-1].event
        return shown, Place(last.started_at, last.event_id)
    return shown, None if oldest is None else Place(oldest, _FIRST_ID)


def oldest_examined(near: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Make the query for the start of the oldest event that a page looks at."""
    started_at = usage_events.c.started_at
    return sa.select(started_at).where(*near).order_by(started_at.desc()).offset(EXAMINED_MAX).limit(1)


def listing(
    near: Sequence[sa.ColumnElement[bool]],
    narrow: Sequence[sa.ColumnElement[bool]],
    oldest: datetime | None,
    limit: int,
) -> sa.Select[Any]:
    """Make the query for the events of a page."""
    query = _NAMED.where(*near, *narrow).order_by(*_NEWEST_FIRST).limit(limit)
    return query if oldest is None else query.where(usage_events.c.started_at >= oldest)


def _near(wanted: Wanted, key_ids: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that an index of the ledger leads to."""
    event = usage_events.c
    conditions: list[sa.ColumnElement[bool]] = []
    if key_ids is not None:
        conditions.append(event.key_id.in_(key_ids))
    if wanted.since is not None:
        conditions.append(event.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(event.started_at < wanted.until)
    if wanted.before is not None:
        at, event_id = wanted.before
        # The first part is what an index understands.
        conditions += [
            event.started_at <= at,
            (event.started_at < at) | (event.event_id < _exact(event_id)),
        ]
    return conditions


def _narrow(wanted: Wanted, team_id: str | None) -> list[sa.ColumnElement[bool]]:
    event = usage_events.c
    model = sa.func.coalesce(event.model_served, event.model_requested)
    columns = (
        (event.team_id, team_id),
        (model, wanted.model),
        (event.upstream, wanted.upstream),
        (event.outcome, wanted.outcome),
    )
    return [column == value for column, value in columns if value is not None]


def _key_ids(connection: sa.Connection, reference: str, scope: Scope) -> list[str]:
    """Return the key of that id, or all keys that have that name, as those of one line have."""
    named = sa.select(api_keys.c.id).where(within(scope, api_keys.c.team_id))
    by_id = connection.scalars(named.where(api_keys.c.id == reference)).all()
    found = by_id or connection.scalars(named.where(api_keys.c.name == reference)).all()
    if not found:
        raise NotFound(f"There is no key {reference!r}; see: meter keys list", param="key")
    return list(found)


def _exact(event_id: str) -> str:
    try:
        return str(UUID(event_id))
    except ValueError:
        raise NotFound(f"There is no event {event_id!r}.", param="event_id") from None


def _absent(event_id: str, horizon: datetime | None) -> str:
    left = "" if horizon is None else f" Those from before {label(horizon)} have left the ledger."
    return f"There is no event {event_id!r}.{left}"


def _listed(row: sa.RowMapping) -> Listed:
    return Listed(read_event(row), row["team_name"] or row["team_id"], row["key_name"] or row["key_id"])
