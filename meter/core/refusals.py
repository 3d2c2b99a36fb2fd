"""Requests that meter refused by itself: not events, but counts by hour, key and reason."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec


class Refused(NamedTuple):
    """What refusals are counted by."""

    hour: datetime
    key_id: str
    reason: str
    """The code of the error."""


class RefusalRow(msgspec.Struct, frozen=True, kw_only=True):
    """How often a key was refused for a reason."""

    team: str
    key: str
    key_id: str
    reason: str
    count: int


def hour_of(instant: datetime) -> datetime:
    """Return the start of the hour, in UTC, that holds an instant in UTC."""
    return instant.replace(minute=0, second=0, microsecond=0)


def refusals_json(rows: list[RefusalRow]) -> dict[str, Any]:
    """Return refusals as the JSON document that the command line and the API give."""
    return {"rows": msgspec.to_builtins(rows), "total": {"count": sum(row.count for row in rows)}}
