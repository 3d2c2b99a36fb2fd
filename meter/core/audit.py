"""The audit log: who changed what, and when. It never holds a secret."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec


class Signature(NamedTuple):
    """Who changes something, and when: what every function that changes something takes."""

    actor: str
    at: datetime


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    id: int
    at: datetime
    actor: str
    """A token's id and name, or `user@host` of a command line."""
    action: str
    """What was done, such as `key.create`."""
    target: str
    """The id of what it was done to."""
    details: dict[str, Any]
    """The values that were set; never a secret."""
