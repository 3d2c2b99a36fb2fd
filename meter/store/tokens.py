"""Tokens of the control plane in the database: only their digests, never the tokens."""

from typing import Any

import sqlalchemy as sa

from meter.core.access import Role
from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.keys import Minting
from meter.core.tokens import Terms, Token, digest, mint
from meter.store import audit
from meter.store import teams as teams_store
from meter.store.database import Database
from meter.store.tables import admin_tokens, teams

_JOINED = sa.select(admin_tokens, teams.c.name.label("team")).outerjoin(teams)
_STORED = ("id", "role", "name", "team_id", "created_at", "expires_at")


def issue(database: Database, terms: Terms, *, minting: Minting, by: Signature) -> tuple[Token, str]:
    """Make a token; returns it with its secret, which nothing can show again."""
    public_id, secret = mint(minting.choose)
    owner = None if terms.team is None else teams_store.find(database, terms.team)
    token = Token(
        id=public_id,
        role=terms.role,
        name=terms.name or public_id,
        team_id=owner.id if owner else None,
        team=owner.name if owner else None,
        created_at=by.at,
        expires_at=terms.expires_at,
    )
    row = {field: getattr(token, field) for field in _STORED}
    shown = {field: getattr(token, field) for field in ("role", "name", "team", "expires_at")}
    with database.write() as connection:
        connection.execute(sa.insert(admin_tokens).values(digest=digest(secret, minting.pepper), **row))
        audit.note(connection, by, "token.create", token.id, **shown)
    return token, secret


def find(database: Database, token_digest: bytes) -> Token | None:
    """Return the token of this digest, also when it has ended; `None` where there is none."""
    with database.read() as connection:
        row = connection.execute(_JOINED.where(admin_tokens.c.digest == token_digest)).first()
    return None if row is None else _token(row)


def list_all(database: Database) -> list[Token]:
    """Return all tokens, oldest first."""
    with database.read() as connection:
        rows = connection.execute(_JOINED.order_by(admin_tokens.c.created_at, admin_tokens.c.id)).all()
    return [_token(row) for row in rows]


def revoke(database: Database, reference: str, by: Signature) -> Token:
    """End a token, by its id or name; ending it again changes nothing."""
    with database.write() as connection:
        token = _find(connection, reference)
        in_use = (admin_tokens.c.id == token.id) & admin_tokens.c.revoked_at.is_(None)
        ended = connection.execute(sa.update(admin_tokens).where(in_use).values(revoked_at=by.at))
        if ended.rowcount:
            audit.note(connection, by, "token.revoke", token.id, name=token.name)
        return _find(connection, token.id)


def _find(connection: sa.Connection, reference: str) -> Token:
    row = connection.execute(_JOINED.where(admin_tokens.c.id == reference)).first()
    if row is not None:
        return _token(row)
    named = _JOINED.where(admin_tokens.c.name == reference, admin_tokens.c.revoked_at.is_(None))
    rows = connection.execute(named.limit(2)).all()
    if not rows:
        raise NotFound(f"There is no token {reference!r}; see: meter tokens list", param="token")
    if len(rows) > 1:
        raise Conflict(
            f"Several tokens are named {reference!r}; give the id: meter tokens list", param="token"
        )
    return _token(rows[0])


def _token(row: sa.Row[Any]) -> Token:
    values = {name: getattr(row, name) for name in Token.__struct_fields__}
    return Token(**values | {"role": Role(row.role)})
