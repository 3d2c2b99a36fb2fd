"""What the command line and the admin API both do: the same functions, with time and randomness put in."""

import secrets
import time
from datetime import UTC, datetime

from meter.core.clock import Clock
from meter.core.events import uuid7
from meter.core.keys import Key, Minting, mint_id
from meter.core.teams import Team, check_name
from meter.store import keys, teams
from meter.store.database import Database

clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)


def register_team(database: Database, name: str) -> Team:
    """Make a team."""
    return teams.create(database, team_id=mint_id(secrets.choice), name=check_name(name), now=clock.now())


def issue_key(
    database: Database, pepper: bytes, team: str, name: str | None, expires_at: datetime | None
) -> tuple[Key, str]:
    """Make a key; returns it with its secret."""
    now = clock.now()
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise ValueError("'expires_at' must be a time to come, with its offset from UTC")
    minting = Minting(secrets.choice, now, pepper)
    checked = None if name is None else check_name(name)
    return keys.issue(database, team=team, name=checked, expires_at=expires_at, minting=minting)


def new_event_id() -> str:
    """Mint an event's id."""
    return uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10))
