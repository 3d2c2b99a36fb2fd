"""Keys: how they are made, recognised and shown.

A key is `mtr_<public id>_<secret>`. The public id names the key in logs and reports. The secret carries
256 bits of randomness, so that a plain HMAC protects it and no slow hash is needed on every request. Only the
HMAC under a pepper, which is kept outside the database, is stored: who steals the database can neither use
nor test a key.
"""

import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from meter.core.limits import Limits

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PUBLIC_ID_LENGTH = 12
# 43 characters of 62 are 256.03 bits.
SECRET_LENGTH = 43
PEPPER_BYTES_MIN = 32

_SHAPE = re.compile(rf"mtr_[0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH}}}")

Choose = Callable[[str], str]


class Grant(msgspec.Struct, frozen=True):
    """What the holder of a key may do, as the data plane sees it."""

    key_id: str
    key_name: str
    team_id: str
    team_name: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    stream_usage: str | None = None
    limits: Limits = Limits()
    team_limits: Limits = Limits()
    """Those of its team; a request has to pass both."""
    unpriced: str | None = None
    """What becomes of requests for models without a price; `None` is as the settings say."""
    first_id: str | None = None
    """The first key of its line, where it took over from another."""

    @property
    def owner_id(self) -> str:
        """The id under which the key's budgets are kept: those of all keys that took over from each other."""
        return self.first_id or self.key_id

    def valid_at(self, now: datetime) -> bool:
        """Say whether the key may be used at `now`; it ends at the instant of expiry."""
        return lasts(now, self.expires_at, self.revoked_at)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is shown: everything but its secret."""

    id: str
    """The public id, the middle part of the key."""
    team_id: str
    team: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    stream_usage: str | None = None
    """How its streams are metered; `None` is as the upstream and the settings say."""
    unpriced: str | None = None
    """What becomes of requests for models without a price; `None` is as the settings say."""
    rotated_from: str | None = None
    """The id of the key that this one took over from."""
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    @property
    def limits(self) -> Limits:
        """Its own limits."""
        return Limits(models=self.models, rpm=self.rpm, tpm=self.tpm, concurrency=self.concurrency)

    def valid_at(self, now: datetime) -> bool:
        """Say whether the key may be used at `now`."""
        return lasts(now, self.expires_at, self.revoked_at)


class Snapshot(msgspec.Struct, frozen=True):
    """All grants by the digests of their keys, as they were at a time; `None` is never."""

    taken_at: datetime | None
    grants: dict[bytes, Grant]


class Minting(NamedTuple):
    """What making a key takes from outside: randomness, and the pepper."""

    choose: Choose
    pepper: bytes


def lasts(now: datetime, *ends: datetime | None) -> bool:
    """Say whether none of the instants at which something ends has come."""
    # By way of a list, which takes half the time of a generator.
    return not [end for end in ends if end is not None and end <= now]


def to_come(expires_at: datetime | None, now: datetime) -> datetime | None:
    """Return when something is to end, or raise `ValueError` where it would have ended already."""
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise ValueError("'expires_at' must be a time to come, with its offset from UTC")
    return expires_at


def mint_id(choose: Choose) -> str:
    """Make a public id, for a key or a team."""
    return "".join(choose(ALPHABET) for _ in range(PUBLIC_ID_LENGTH))


def mint(choose: Choose) -> tuple[str, str]:
    """Make a key; `choose` picks one character of a string at random (`secrets.choice`).

    Returns the public id and the whole key.
    """
    public_id = mint_id(choose)
    secret = "".join(choose(ALPHABET) for _ in range(SECRET_LENGTH))
    return public_id, f"mtr_{public_id}_{secret}"


def succession(key: Key, now: datetime, grace: timedelta) -> tuple[datetime | None, datetime]:
    """Say when the successor of a key ends that is rotated now, and when the key itself does.

    The successor lives as long as the key was made for, counted from now; the key never longer than it would.
    """
    lifetime = None if key.expires_at is None else key.expires_at - key.created_at
    ends = now + grace if key.expires_at is None else min(key.expires_at, now + grace)
    return (None if lifetime is None else now + lifetime), ends


def well_formed(key: str) -> bool:
    """Say whether this has a key's shape, so that nothing else is ever looked up."""
    return _SHAPE.fullmatch(key) is not None


def digest(key: str, pepper: bytes) -> bytes:
    """Return the 32 bytes under which a key is stored and found: HMAC-SHA256 under the pepper."""
    return digester(pepper)(key)


def digester(pepper: bytes) -> Callable[[str], bytes]:
    """Return the same under one pepper, for whoever needs many.

    In one call `hmac` lets other threads run meanwhile, and waits for them, which takes longer than hashing.
    """
    empty = hmac.new(pepper, digestmod="sha256")

    def digest_of(key: str) -> bytes:
        mac = empty.copy()
        mac.update(key.encode())
        return mac.digest()

    return digest_of
