"""What the command line and the admin API both do: the same functions, with time and randomness put in."""

import getpass
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from meter.core.access import ACTOR_LENGTH_MAX
from meter.core.audit import Signature
from meter.core.clock import Clock
from meter.core.events import uuid7
from meter.core.keys import Key, Minting, mint_id, to_come
from meter.core.limits import check_limits
from meter.core.teams import Team, check_name
from meter.core.tokens import Terms, Token, checked
from meter.store import keys, teams, tokens
from meter.store.database import Database

_ID_BYTES = 10
_IDS_A_BLOCK = 400

clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)


def signed(actor: str) -> Signature:
    """Sign a change that is made now."""
    return Signature(actor[:ACTOR_LENGTH_MAX], clock.now())


def command_line() -> str:
    """Name whoever runs a command, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In many containers the user has no name.
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def register_team(database: Database, actor: str, name: str) -> Team:
    """Make a team."""
    return teams.create(database, team_id=mint_id(secrets.choice), name=check_name(name), by=signed(actor))


def issue_key(
    database: Database, pepper: bytes, actor: str, team: str, name: str | None, expires_at: datetime | None
) -> tuple[Key, str]:
    """Make a key; returns it with its secret."""
    by = signed(actor)
    return keys.issue(
        database,
        team=team,
        name=None if name is None else check_name(name),
        expires_at=to_come(expires_at, by.at),
        minting=Minting(secrets.choice, pepper),
        by=by,
    )


def change_key(database: Database, actor: str, reference: str, changes: Mapping[str, Any]) -> Key:
    """Change what is given of a key."""
    return keys.change(database, reference, check_limits(changes), signed(actor))


def change_team(database: Database, actor: str, reference: str, changes: Mapping[str, Any]) -> Team:
    """Change what is given of a team."""
    return teams.change(database, reference, check_limits(changes), signed(actor))


def rotate_key(
    database: Database, pepper: bytes, actor: str, reference: str, grace: timedelta
) -> tuple[Key, str]:
    """Make a key's successor; returns it with its secret."""
    minting = Minting(secrets.choice, pepper)
    return keys.rotate(database, reference, grace=grace, minting=minting, by=signed(actor))


def issue_token(database: Database, pepper: bytes, actor: str, terms: Terms) -> tuple[Token, str]:
    """Make a token of the control plane; returns it with its secret."""
    by = signed(actor)
    minting = Minting(secrets.choice, pepper)
    return tokens.issue(database, checked(terms, by.at), minting=minting, by=by)


def revoke_token(database: Database, actor: str, reference: str) -> Token:
    """End a token."""
    return tokens.revoke(database, reference, signed(actor))


class Randomness:
    """Random bytes for ids, by the block: asking the kernel takes longer than all else about an id.

    Threads share a block, of which each piece is given to one of them only.
    """

    def __init__(self) -> None:
        self._pieces: Iterator[tuple[bytes]] = iter(())
        # Or a process and its fork would mint the same ids.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Take a new block."""
        self._pieces = struct.iter_unpack(f"{_ID_BYTES}s", secrets.token_bytes(_ID_BYTES * _IDS_A_BLOCK))

    def take(self) -> bytes:
        """Return as many as an id has, which nobody else gets."""
        while True:
            # One step of an iterator in C is one thread's.
            for (piece,) in self._pieces:
                return piece
            self.renew()


_randomness = Randomness()


def new_event_id() -> str:
    """Mint an event's id."""
    return uuid7(time.time_ns() // 1_000_000, _randomness.take())
