"""Keys in the database: only their digests, never the keys."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from meter.core.errors import Conflict, NotFound
from meter.core.keys import Grant, Key, Minting, Snapshot, digest, mint
from meter.store import teams as teams_store
from meter.store.database import Database
from meter.store.tables import api_keys, teams

_JOINED = sa.select(api_keys, teams.c.name.label("team_name")).join(teams)


def issue(
    database: Database, *, team: str, name: str | None, expires_at: datetime | None, minting: Minting
) -> tuple[Key, str]:
    """Make a key for a team, by name or id; returns it with its secret, which nothing can show again."""
    public_id, secret = mint(minting.choose)
    owner = teams_store.find(database, team)
    key = Key(
        id=public_id,
        team_id=owner.id,
        team=owner.name,
        name=name or public_id,
        created_at=minting.now,
        expires_at=expires_at,
    )
    row = {field: getattr(key, field) for field in ("id", "team_id", "name", "created_at", "expires_at")}
    with database.write() as connection:
        connection.execute(sa.insert(api_keys).values(digest=digest(secret, minting.pepper), **row))
    return key, secret


def find_grant(database: Database, key_digest: bytes) -> Grant | None:
    """Return what the key of this digest grants, also when it has ended; `None` where there is none."""
    with database.read() as connection:
        row = connection.execute(_JOINED.where(api_keys.c.digest == key_digest)).first()
    return None if row is None else _grant(row)


def snapshot(database: Database, now: datetime) -> Snapshot:
    """Return the grants of all keys in use."""
    in_use = api_keys.c.revoked_at.is_(None) & (
        api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > now)
    )
    with database.read() as connection:
        rows = connection.execute(_JOINED.where(in_use)).all()
    return Snapshot(now, {row.digest: _grant(row) for row in rows})


def list_all(database: Database, *, team_id: str | None = None) -> list[Key]:
    """Return all keys, of one team if given, newest last."""
    query = _JOINED.order_by(api_keys.c.created_at, api_keys.c.id)
    if team_id is not None:
        query = query.where(api_keys.c.team_id == team_id)
    with database.read() as connection:
        return [_key(row) for row in connection.execute(query)]


def find(database: Database, reference: str) -> Key:
    """Return the key of that id, or the one key in use of that name."""
    with database.read() as connection:
        return _find(connection, reference)


def revoke(database: Database, reference: str, now: datetime) -> Key:
    """End a key at `now`; ending it again changes nothing."""
    with database.write() as connection:
        key = _find(connection, reference)
        in_use = (api_keys.c.id == key.id) & api_keys.c.revoked_at.is_(None)
        connection.execute(sa.update(api_keys).where(in_use).values(revoked_at=now))
        return _find(connection, key.id)


def change(database: Database, reference: str, *, stream_usage: str | None) -> Key:
    """Change how a key's streams are metered; `None` leaves it to the upstream and the settings."""
    with database.write() as connection:
        key = _find(connection, reference)
        changed = sa.update(api_keys).where(api_keys.c.id == key.id).values(stream_usage=stream_usage)
        connection.execute(changed)
        return _find(connection, key.id)


def _find(connection: sa.Connection, reference: str) -> Key:
    row = connection.execute(_JOINED.where(api_keys.c.id == reference)).first()
    if row is not None:
        return _key(row)
    named = _JOINED.where(api_keys.c.name == reference, api_keys.c.revoked_at.is_(None))
    rows = connection.execute(named.limit(2)).all()
    if not rows:
        raise NotFound(f"There is no key {reference!r}; see: meter keys list", param="key")
    if len(rows) > 1:
        raise Conflict(f"Several keys are named {reference!r}; give the id: meter keys list", param="key")
    return _key(rows[0])


def _grant(row: sa.Row[Any]) -> Grant:
    return Grant(
        key_id=row.id,
        key_name=row.name,
        team_id=row.team_id,
        team_name=row.team_name,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        stream_usage=row.stream_usage,
    )


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    return Key(
        id=row.id,
        team_id=row.team_id,
        team=row.team_name,
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        stream_usage=row.stream_usage,
    )
