"""Refusals in the database, by hour in UTC."""

from collections.abc import Mapping

import sqlalchemy as sa

from meter.core.refusals import RefusalRow, Refused, hour_of
from meter.core.reports import Question
from meter.store.database import Database
from meter.store.tables import api_keys, refusals_hourly, teams

_KEY = ["hour", "key_id", "reason"]


def add(database: Database, counts: Mapping[Refused, int]) -> None:
    """Add counts up with those that are there."""
    statement = database.insert(refusals_hourly)
    added = refusals_hourly.c["count"] + statement.excluded["count"]
    statement = statement.on_conflict_do_update(index_elements=_KEY, set_={"count": added})
    # In one order, so that no two servers wait for each other.
    rows = [refused._asdict() | {"count": counts[refused]} for refused in sorted(counts)]
    with database.write() as connection:
        connection.execute(statement, rows)


def refusals(database: Database, question: Question) -> list[RefusalRow]:
    """Return how often keys were refused in the hours that a question touches, the most often first."""
    table = refusals_hourly.c
    where = [table.hour >= hour_of(question.since), table.hour < question.until]
    if question.scope_team_id is not None:
        where.append(api_keys.c.team_id == question.scope_team_id)
    if question.team_id is not None:
        where.append(api_keys.c.team_id == question.team_id)
    if question.key_ids is not None:
        where.append(table.key_id.in_(question.key_ids))
    count = sa.func.sum(table["count"]).label("count")
    columns = (
        sa.func.coalesce(teams.c.name, "").label("team"),
        sa.func.coalesce(api_keys.c.name, table.key_id).label("key"),
        table.key_id,
        table.reason,
    )
    joined = refusals_hourly.outerjoin(api_keys, api_keys.c.id == table.key_id).outerjoin(
        teams, teams.c.id == api_keys.c.team_id
    )
    query = sa.select(*columns, count).select_from(joined).where(*where).group_by(*columns)
    with database.read_long() as connection:
        rows = connection.execute(query.order_by(count.desc(), *columns)).mappings().all()
    return [RefusalRow(**{**row, "count": int(row["count"])}) for row in rows]
