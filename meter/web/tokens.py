"""Tokens over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from meter.core.access import Asker, Role
from meter.core.tokens import Terms, Token
from meter.web.access import FOR_ADMINS
from meter.web.idempotency import Once
from meter.web.instants import read_instant


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make."""

    role: Role
    team: str | None = None
    """Of a viewer: the team, by name or id, whose things it sees; null sees everything."""
    name: str | None = None
    expires_at: str | None = None
    """RFC 3339."""


class IssuedToken(msgspec.Struct):
    """A new token with its secret, which is shown this once."""

    id: str
    token: str
    role: Role
    team: str | None
    name: str
    expires_at: datetime | None


class TokenList(msgspec.Struct):
    """Tokens, oldest first."""

    data: list[Token]


@dataclass(frozen=True)
class Tokens:
    """What this controller works with."""

    issue: Callable[[str, Terms], tuple[Token, str]]
    list_all: Callable[[], list[Token]]
    revoke: Callable[[str, str], Token]


class TokenController(Controller):
    """Make, list and revoke tokens of the admin API."""

    path = "/api/v1/tokens"
    tags = ("tokens",)
    opt = FOR_ADMINS

    @post(sync_to_thread=True, summary="Make a token")
    def create(
        self,
        data: JSONBody[NewToken],
        tokens: NamedDependency[Tokens],
        asker: NamedDependency[Asker],
        once: NamedDependency[Once],
    ) -> IssuedToken:
        """Make a token; the answer is the only time that its secret is shown."""
        terms = Terms(data.role, data.team, data.name, read_instant(data.expires_at, "expires_at"))
        return once.with_secret(
            data,
            lambda: issued(*tokens.issue(asker.actor, terms)),
            lambda made: f"token {made.id}",
        )

    @get(sync_to_thread=True, summary="List tokens")
    def list_all(self, tokens: NamedDependency[Tokens]) -> TokenList:
        """List all tokens, without their secrets. The admin token of the data directory is none of them."""
        return TokenList(tokens.list_all())

    @delete("/{token_id:str}", sync_to_thread=True, status_code=200, summary="Revoke a token")
    def revoke(
        self, token_id: FromPath[str], tokens: NamedDependency[Tokens], asker: NamedDependency[Asker]
    ) -> Token:
        """End a token; requests with it are refused within five seconds."""
        return tokens.revoke(asker.actor, token_id)


def issued(token: Token, secret: str) -> IssuedToken:
    """Show a token together with its secret."""
    return IssuedToken(token.id, secret, token.role, token.team, token.name, token.expires_at)
