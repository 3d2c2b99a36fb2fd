"""Keys in the database: only their digests, never the keys."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.keys import Grant, Key, Minting, Snapshot, digest, mint, succession
from meter.core.limits import Limits
from meter.store import audit
from meter.store import teams as teams_store
from meter.store.database import Database
from meter.store.limits import TEAM_LIMITS, limits_of
from meter.store.scope import within
from meter.store.tables import api_keys, teams

_JOINED = sa.select(api_keys, teams.c.name.label("team_name"), *TEAM_LIMITS).join(teams)


def issue(
    database: Database,
    *,
    team: str,
    name: str | None,
    expires_at: datetime | None,
    minting: Minting,
    by: Signature,
) -> tuple[Key, str]:
    """Make a key for a team, by name or id; returns it with its secret, which nothing can show again."""
    public_id, secret = mint(minting.choose)
    owner = teams_store.find(database, team)
    key = Key(
        id=public_id,
        team_id=owner.id,
        team=owner.name,
        name=name or public_id,
        created_at=by.at,
        expires_at=expires_at,
    )
    row = {field: getattr(key, field) for field in ("id", "team_id", "name", "created_at", "expires_at")}
    with database.write() as connection:
        connection.execute(sa.insert(api_keys).values(digest=digest(secret, minting.pepper), **row))
        audit.note(connection, by, "key.create", key.id, name=key.name, team=key.team, expires_at=expires_at)
    return key, secret


def rotate(
    database: Database, reference: str, *, grace: timedelta, minting: Minting, by: Signature
) -> tuple[Key, str]:
    """Make the successor of a key, with all of its settings; the key itself ends after the grace."""
    public_id, secret = mint(minting.choose)
    with database.write() as connection:
        old = _find(connection, reference)
        row = dict(connection.execute(_locked(old.id)).mappings().one())
        _check_rotatable(connection, old, by.at)
        expires_at, ends = succession(old, by.at, grace)
        own = {
            "id": public_id,
            "digest": digest(secret, minting.pepper),
            # A key that was named by its id is so again.
            "name": public_id if old.name == old.id else old.name,
            "created_at": by.at,
            "expires_at": expires_at,
            "rotated_from": old.id,
            "first_id": row["first_id"] or old.id,
        }
        connection.execute(sa.insert(api_keys).values(row | own))
        connection.execute(sa.update(api_keys).where(api_keys.c.id == old.id).values(expires_at=ends))
        audit.note(connection, by, "key.rotate", old.id, successor=public_id, expires_at=ends)
        return _find(connection, public_id), secret


def _locked(key_id: str) -> sa.Select[Any]:
    return sa.select(api_keys).where(api_keys.c.id == key_id).with_for_update()


def _check_rotatable(connection: sa.Connection, key: Key, now: datetime) -> None:
    if not key.valid_at(now):
        raise Conflict(f"Key {key.id} has ended; make a new one: meter keys create", param="key")
    successor = connection.scalar(sa.select(api_keys.c.id).where(api_keys.c.rotated_from == key.id))
    if successor is not None:
        raise Conflict(f"Key {key.id} was rotated already: {successor} took over from it.", param="key")


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


def list_all(database: Database, *, team_id: str | None = None, scope: Scope = EVERYTHING) -> list[Key]:
    """Return the keys of a scope, of one team if given, newest last."""
    query = _JOINED.where(within(scope, api_keys.c.team_id))
    query = query.order_by(api_keys.c.created_at, api_keys.c.id)
    if team_id is not None:
        query = query.where(api_keys.c.team_id == team_id)
    with database.read() as connection:
        return [_key(row) for row in connection.execute(query)]


def find(database: Database, reference: str, scope: Scope = EVERYTHING) -> Key:
    """Return the key of that id, or the one key in use of that name; one out of scope does not exist."""
    with database.read() as connection:
        return _find(connection, reference, scope)


def first_of_line(database: Database, reference: str) -> Key:
    """Return the key that all those took over from, one from the other, of which this is one."""
    with database.read() as connection:
        key = _find(connection, reference)
        first_id = connection.scalar(sa.select(api_keys.c.first_id).where(api_keys.c.id == key.id))
        return key if first_id is None else _find(connection, first_id)


def revoke(database: Database, reference: str, by: Signature) -> Key:
    """End a key; ending it again changes nothing."""
    with database.write() as connection:
        key = _find(connection, reference)
        in_use = (api_keys.c.id == key.id) & api_keys.c.revoked_at.is_(None)
        ended = connection.execute(sa.update(api_keys).where(in_use).values(revoked_at=by.at))
        if ended.rowcount:
            audit.note(connection, by, "key.revoke", key.id, name=key.name, team=key.team)
        return _find(connection, key.id)


def change(database: Database, reference: str, changes: Mapping[str, Any], by: Signature) -> Key:
    """Set columns of a key, and leave those that are not given as they are."""
    with database.write() as connection:
        key = _find(connection, reference)
        if changes:
            connection.execute(sa.update(api_keys).where(api_keys.c.id == key.id).values(changes))
            audit.note(connection, by, "key.change", key.id, **changes)
        return _find(connection, key.id)


def _find(connection: sa.Connection, reference: str, scope: Scope = EVERYTHING) -> Key:
    seen = _JOINED.where(within(scope, api_keys.c.team_id))
    row = connection.execute(seen.where(api_keys.c.id == reference)).first()
    if row is not None:
        return _key(row)
    # A name means the newest of the keys that took over from each other.
    successor = api_keys.alias()
    superseded = sa.exists().where(
        successor.c.rotated_from == api_keys.c.id, successor.c.revoked_at.is_(None)
    )
    named = seen.where(api_keys.c.name == reference, api_keys.c.revoked_at.is_(None), ~superseded)
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
        limits=Limits(**limits_of(row)),
        team_limits=Limits(**limits_of(row, "team_")),
        unpriced=row.unpriced,
        first_id=row.first_id,
    )


def _key(row: sa.Row[Any]) -> Key:
    return Key(
        id=row.id,
        team_id=row.team_id,
        team=row.team_name,
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        stream_usage=row.stream_usage,
        unpriced=row.unpriced,
        rotated_from=row.rotated_from,
        **limits_of(row),
    )
