"""Teams in the database."""

from datetime import datetime

import sqlalchemy as sa

from meter.core.errors import Conflict, NotFound
from meter.core.teams import Team
from meter.store.database import Database
from meter.store.tables import teams


def create(database: Database, *, team_id: str, name: str, now: datetime) -> Team:
    """Add a team; its name must be new."""
    team = Team(team_id, name, now)
    row = database.insert(teams).values(id=team.id, name=name, created_at=now)
    with database.write() as connection:
        # Asking first would leave room for another server in between.
        added = row.on_conflict_do_nothing(index_elements=["name"]).returning(teams.c.id)
        if connection.scalar(added) is None:
            raise Conflict(f"There is a team named {name!r} already.", param="name")
    return team


def find(database: Database, name: str) -> Team:
    """Return the team of that name or id."""
    query = sa.select(teams).where((teams.c.name == name) | (teams.c.id == name))
    with database.read() as connection:
        row = connection.execute(query.order_by(teams.c.id == name)).first()
    if row is None:
        raise NotFound(f"There is no team {name!r}; make it with: meter teams create {name}", param="team")
    return Team(row.id, row.name, row.created_at)


def list_all(database: Database) -> list[Team]:
    """Return all teams by name."""
    with database.read() as connection:
        rows = connection.execute(sa.select(teams).order_by(teams.c.name)).all()
    return [Team(row.id, row.name, row.created_at) for row in rows]
