"""Teams in the database."""

import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.teams import Team
from meter.store import audit
from meter.store.database import Database
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
    query = sa.select(teams).where((teams.c.name == name) | (teams.c.id == name), within(scope, teams.c.id))
    with database.read() as connection:
        row = connection.execute(query.order_by(teams.c.id == name)).first()
    if row is None:
        raise NotFound(f"There is no team {name!r}; make it with: meter teams create {name}", param="team")
    return Team(row.id, row.name, row.created_at)


def list_all(database: Database, scope: Scope = EVERYTHING) -> list[Team]:
    """Return the teams of a scope by name."""
    query = sa.select(teams).where(within(scope, teams.c.id)).order_by(teams.c.name)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Team(row.id, row.name, row.created_at) for row in rows]
