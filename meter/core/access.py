"""Who asks the control plane, what they may do, and whose things they may see."""

from enum import StrEnum
from typing import NamedTuple

import msgspec

ACTOR_LENGTH_MAX = 128


class Role(StrEnum):
    """What a token is for."""

    ADMIN = "admin"
    """Reads and changes everything."""
    VIEWER = "viewer"
    """Reads everything; with a team, what belongs to that team."""
    METRICS = "metrics"
    """Scrapes `/metrics`, and nothing else."""


class Least(StrEnum):
    """What a route asks of whoever asks it, at least."""

    METRICS = "metrics"
    """Any token but a team's, whose holder would see the other teams' numbers."""
    TEAM = "team"
    """A viewer; one of a team gets what belongs to its team."""
    VIEWER = "viewer"
    """A viewer of everything."""
    ADMIN = "admin"


class Scope(NamedTuple):
    """Whose things may be seen. Others' things do not exist for whoever has this scope."""

    team_id: str | None
    """`None`: everybody's."""


EVERYTHING = Scope(None)


class Asker(msgspec.Struct, frozen=True):
    """Who asks: a token's holder."""

    role: Role
    id: str
    name: str
    team_id: str | None = None

    @property
    def actor(self) -> str:
        """Name the asker in the audit log; the id stands first, because names repeat."""
        return f"{self.id} {self.name}"[:ACTOR_LENGTH_MAX]

    @property
    def scope(self) -> Scope:
        """Whose things the asker may see."""
        return Scope(self.team_id)

    def may(self, least: Least) -> bool:
        """Say whether this is enough for a route that asks for `least`."""
        if self.team_id is not None:
            return least is Least.TEAM and self.role is Role.VIEWER
        return least in _REACHED[self.role]


_REACHED = {
    Role.ADMIN: frozenset(Least),
    Role.VIEWER: frozenset({Least.METRICS, Least.TEAM, Least.VIEWER}),
    Role.METRICS: frozenset({Least.METRICS}),
}

# Whoever holds the token of the settings or of the data directory.
OWNER = Asker(Role.ADMIN, "owner", "admin token")
# Whoever holds the token for metrics of the settings.
SCRAPER = Asker(Role.METRICS, "scraper", "metrics token")
