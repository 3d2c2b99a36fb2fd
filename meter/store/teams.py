"""Teams in the database."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.teams import Team
from meter.store import audit
from meter.store.database import Database
from meter.store.limits import limits_of
from meter.store.scope import within
from meter.store.tables import teams


def create(database: Database, *, team_id: str, name: str, by: Signature) -> Team:
    """Add a team; its name must be new."""
    team = Team(team_id, name, by.at)
    row = database.insert(teams).values(id=team.id, name=name, created_at=by.at)
    with database.write() as connection:
        # Asking first would leave room for another server in between.
        added = row.on_conflict_do_nothing(index_elements=["name"]).returning(teams.c.id)
        if connection.scalar(added) is None:
            raise Conflict(f"There is a team named {name!r} already.", param="name")
        audit.note(connection, by, "team.create", team.id, name=name)
    return team


def find(database: Database, name: str, scope: Scope = EVERYTHING) -> Team:
    """Return the team of that name or id; one out of scope does not exist."""
    with database.read() as connection:
        return _find(connection, name, scope)


def list_all(database: Database, scope: Scope = EVERYTHING) -> list[Team]:
    """Return the teams of a scope by name."""
    query = sa.select(teams).where(within(scope, teams.c.id)).order_by(teams.c.name)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [_team(row) for row in rows]


def change(database: Database, reference: str, changes: Mapping[str, Any], by: Signature) -> Team:
    """Set columns of a team, and leave those that are not given as they are."""
    with database.write() as connection:
        team = _find(connection, reference)
        if changes:
            connection.execute(sa.update(teams).where(teams.c.id == team.id).values(changes))
            audit.note(connection, by, "team.change", team.id, **changes)
        return _find(connection, team.id)


def _find(connection: sa.Connection, name: str, scope: Scope = EVERYTHING) -> Team:
    query = sa.select(teams).where((teams.c.name == name) | (teams.c.id == name), within(scope, teams.c.id))
    row = connection.execute(query.order_by(teams.c.id == name)).first()
    if row is None:
        raise NotFound(f"There is no team {name!r}; make it with: meter teams create {name}", param="team")
    return _team(row)


def _team(row: sa.Row[Any]) -> Team:
    return Team(row.id, row.name, row.created_at, **limits_of(row))
