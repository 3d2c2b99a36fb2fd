"""Tokens of the control plane: how they are made, recognised and shown.

A token is `mta_<public id>_<secret>`, protected like a key (see `meter.core.keys`) but hashed under a key of
its own: neither works in the other's place, not even where its digest was put there.
"""

import re
from datetime import datetime
from typing import NamedTuple

import msgspec

from meter.core.access import Asker, Role
from meter.core.keys import ALPHABET, PUBLIC_ID_LENGTH, SECRET_LENGTH, Choose, lasts, mint_id, to_come
from meter.core.keys import digest as keyed_digest
from meter.core.subkeys import ADMIN_TOKENS, subkey
from meter.core.teams import check_name

_SHAPE = re.compile(rf"mta_[0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH}}}")


class Terms(NamedTuple):
    """What a token is made for: its role, the team by name or id, what it is called, when it ends."""

    role: Role
    team: str | None = None
    name: str | None = None
    expires_at: datetime | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is shown: everything but its secret."""

    id: str
    """The public id, the middle part of the token."""
    role: Role
    name: str
    team_id: str | None = None
    team: str | None = None
    """Whose things it shows; null is everybody's."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def asker(self) -> Asker:
        """Who asks with this token."""
        return Asker(self.role, self.id, self.name, self.team_id)

    def valid_at(self, now: datetime) -> bool:
        """Say whether the token may be used at `now`; it ends at the instant of expiry."""
        return lasts(now, self.expires_at, self.revoked_at)


def mint(choose: Choose) -> tuple[str, str]:
    """Make a token; returns its public id and the whole of it."""
    public_id = mint_id(choose)
    secret = "".join(choose(ALPHABET) for _ in range(SECRET_LENGTH))
    return public_id, f"mta_{public_id}_{secret}"


def well_formed(token: str) -> bool:
    """Say whether this has a token's shape, so that nothing else is ever looked up."""
    return _SHAPE.fullmatch(token) is not None


def digest(token: str, pepper: bytes) -> bytes:
    """Return the 32 bytes under which a token is stored and found."""
    return keyed_digest(token, subkey(pepper, ADMIN_TOKENS))


def checked(terms: Terms, now: datetime) -> Terms:
    """Return terms as they are stored; raises `ValueError` for what no token can be made for."""
    if terms.team is not None and terms.role is not Role.VIEWER:
        raise ValueError(f"'team' is for viewers; a token of role '{terms.role}' belongs to no team")
    name = None if terms.name is None else check_name(terms.name)
    return Terms(terms.role, terms.team, name, to_come(terms.expires_at, now))
