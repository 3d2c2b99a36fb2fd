"""Keys over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from meter.core.keys import Key


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make, for a team by its name or id."""

    team: str
    name: str | None = None
    expires_at: datetime | None = None


class KeyChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a key."""

    stream_usage: Literal["ensure", "always_sent", "observe"] | None
    """How its streams are metered; null is as the upstream and the settings say."""


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

    issue: Callable[[str, str | None, datetime | None], tuple[Key, str]]
    list_all: Callable[[str | None], list[Key]]
    revoke: Callable[[str], Key]
    change: Callable[[str, str | None], Key]


class KeyController(Controller):
    """Make, list and revoke keys."""

    path = "/api/v1/keys"
    tags = ("keys",)

    @post(sync_to_thread=True, summary="Make a key")
    def create(self, data: JSONBody[NewKey], keys: NamedDependency[Keys]) -> IssuedKey:
        """Make a key; the answer is the only time that its secret is shown."""
        key, secret = keys.issue(data.team, data.name, data.expires_at)
        return issued(key, secret)

    @get(sync_to_thread=True, summary="List keys")
    def list_all(self, keys: NamedDependency[Keys], team: FromQuery[str | None] = None) -> KeyList:
        """List all keys, or those of one team."""
        return KeyList(keys.list_all(team))

    @patch("/{key_id:str}", sync_to_thread=True, summary="Change a key")
    def change(self, key_id: FromPath[str], data: JSONBody[KeyChange], keys: NamedDependency[Keys]) -> Key:
        """Change how a key's streams are metered."""
        return keys.change(key_id, data.stream_usage)

    @delete("/{key_id:str}", sync_to_thread=True, status_code=200, summary="Revoke a key")
    def revoke(self, key_id: FromPath[str], keys: NamedDependency[Keys]) -> Key:
        """End a key; requests with it are refused within five seconds."""
        return keys.revoke(key_id)


def issued(key: Key, secret: str) -> IssuedKey:
    """Show a key together with its secret."""
    return IssuedKey(key.id, secret, key.team, key.name, key.expires_at)
