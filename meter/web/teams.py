"""Teams over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from meter.core.teams import Team


class NewTeam(msgspec.Struct, forbid_unknown_fields=True):
    """A team to make."""

    name: str


class TeamList(msgspec.Struct):
    """All teams."""

    data: list[Team]


@dataclass(frozen=True)
class Teams:
    """What this controller works with."""

    create: Callable[[str], Team]
    list_all: Callable[[], list[Team]]


class TeamController(Controller):
    """Make and list teams."""

    path = "/api/v1/teams"
    tags = ("teams",)

    @post(sync_to_thread=True, summary="Make a team")
    def create(self, data: JSONBody[NewTeam], teams: NamedDependency[Teams]) -> Team:
        """Make a team; its name must be new."""
        return teams.create(data.name)

    @get(sync_to_thread=True, summary="List teams")
    def list_all(self, teams: NamedDependency[Teams]) -> TeamList:
        """List all teams by name."""
        return TeamList(teams.list_all())
