"""Teams over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Controller, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from meter.core.access import Asker, Scope
from meter.core.teams import Team
from meter.web.access import FOR_ADMINS, FOR_TEAMS
from meter.web.idempotency import Once
from meter.web.limits import LimitsChange


class NewTeam(msgspec.Struct, forbid_unknown_fields=True):
    """A team to make."""

    name: str


class TeamList(msgspec.Struct):
    """Teams, by name."""

    data: list[Team]


@dataclass(frozen=True)
class Teams:
    """What this controller works with."""

    create: Callable[[str, str], Team]
    list_all: Callable[[Scope], list[Team]]
    change: Callable[[str, str, dict[str, Any]], Team]


class TeamController(Controller):
    """Make, list and change teams."""

    path = "/api/v1/teams"
    tags = ("teams",)

    @post(sync_to_thread=True, opt=FOR_ADMINS, summary="Make a team")
    def create(
        self,
        data: JSONBody[NewTeam],
        teams: NamedDependency[Teams],
        asker: NamedDependency[Asker],
        once: NamedDependency[Once],
    ) -> Team:
        """Make a team; its name must be new."""
        return once(data, lambda: teams.create(asker.actor, data.name))

    @get(sync_to_thread=True, opt=FOR_TEAMS, summary="List teams")
    def list_all(self, teams: NamedDependency[Teams], asker: NamedDependency[Asker]) -> TeamList:
        """List teams by name; a team's viewer sees its own."""
        return TeamList(teams.list_all(asker.scope))

    @patch("/{team_id:str}", sync_to_thread=True, opt=FOR_ADMINS, summary="Change a team")
    def change(
        self,
        team_id: FromPath[str],
        data: JSONBody[LimitsChange],
        teams: NamedDependency[Teams],
        asker: NamedDependency[Asker],
    ) -> Team:
        """Change a team; it takes effect within five seconds."""
        return teams.change(asker.actor, team_id, data.given)
