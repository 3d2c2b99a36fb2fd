"""Keys over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from meter.core.access import Asker, Scope
from meter.core.keys import Key
from meter.web.access import FOR_ADMINS, FOR_TEAMS
from meter.web.idempotency import Once
from meter.web.instants import read_instant
from meter.web.limits import LimitsChange

# A day to change the key in the programs that use it.
GRACE_SECONDS = 86_400
GRACE_SECONDS_MAX = 31_536_000


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make, for a team by its name or id."""

    team: str
    name: str | None = None
    expires_at: str | None = None
    """RFC 3339."""


class KeyChange(LimitsChange, kw_only=True):
    """What to change of a key; what is not given stays as it is."""

    stream_usage: Literal["ensure", "always_sent", "observe"] | msgspec.UnsetType | None = msgspec.UNSET
    """How its streams are metered; null is as the upstream and the settings say."""
    unpriced: Literal["allow", "block"] | msgspec.UnsetType | None = msgspec.UNSET
    """What becomes of requests for models without a price; null is as the settings say."""


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """How to rotate a key."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=GRACE_SECONDS_MAX)] = GRACE_SECONDS
    """How long the key that is rotated goes on."""


class IssuedKey(msgspec.Struct):
    """A new key with its secret, which is shown this once."""

    id: str
    key: str
    team: str
    name: str
    expires_at: datetime | None


class KeyList(msgspec.Struct):
    """Keys, oldest first."""

    data: list[Key]


@dataclass(frozen=True)
class Keys:
    """What this controller works with."""

    issue: Callable[[str, str, str | None, datetime | None], tuple[Key, str]]
    rotate: Callable[[str, str, timedelta], tuple[Key, str]]
    list_all: Callable[[Scope, str | None], list[Key]]
    revoke: Callable[[str, str], Key]
    change: Callable[[str, str, dict[str, Any]], Key]


class KeyController(Controller):
    """Make, list, change, rotate and revoke keys."""

    path = "/api/v1/keys"
    tags = ("keys",)

    @post(sync_to_thread=True, opt=FOR_ADMINS, summary="Make a key")
    def create(
        self,
        data: JSONBody[NewKey],
        keys: NamedDependency[Keys],
        asker: NamedDependency[Asker],
        once: NamedDependency[Once],
    ) -> IssuedKey:
        """Make a key; the answer is the only time that its secret is shown."""
        return once.with_secret(
            data,
            lambda: issued(
                *keys.issue(asker.actor, data.team, data.name, read_instant(data.expires_at, "expires_at"))
            ),
            lambda made: f"key {made.id}",
        )

    @get(sync_to_thread=True, opt=FOR_TEAMS, summary="List keys")
    def list_all(
        self,
        keys: NamedDependency[Keys],
        asker: NamedDependency[Asker],
        team: FromQuery[str | None] = None,
    ) -> KeyList:
        """List all keys, or those of one team; a team's viewer sees its own."""
        return KeyList(keys.list_all(asker.scope, team))

    @patch("/{key_id:str}", sync_to_thread=True, opt=FOR_ADMINS, summary="Change a key")
    def change(
        self,
        key_id: FromPath[str],
        data: JSONBody[KeyChange],
        keys: NamedDependency[Keys],
        asker: NamedDependency[Asker],
    ) -> Key:
        """Change a key; it takes effect within five seconds."""
        return keys.change(asker.actor, key_id, data.given)

    @post("/{key_id:str}/rotate", sync_to_thread=True, opt=FOR_ADMINS, summary="Rotate a key")
    def rotate(
        self,
        key_id: FromPath[str],
        data: JSONBody[Rotation],
        keys: NamedDependency[Keys],
        asker: NamedDependency[Asker],
        once: NamedDependency[Once],
    ) -> IssuedKey:
        """Make the successor of a key, with its settings and name; the key itself ends after the grace.

        A key that was made for 90 days has a successor for 90 days.
        """
        grace = timedelta(seconds=data.grace_seconds)
        return once.with_secret(
            data,
            lambda: issued(*keys.rotate(asker.actor, key_id, grace)),
            lambda made: f"key {made.id}",
        )

    @delete("/{key_id:str}", sync_to_thread=True, opt=FOR_ADMINS, status_code=200, summary="Revoke a key")
    def revoke(
        self, key_id: FromPath[str], keys: NamedDependency[Keys], asker: NamedDependency[Asker]
    ) -> Key:
        """End a key; requests with it are refused within five seconds."""
        return keys.revoke(asker.actor, key_id)


def issued(key: Key, secret: str) -> IssuedKey:
    """Show a key together with its secret."""
    return IssuedKey(key.id, secret, key.team, key.name, key.expires_at)
