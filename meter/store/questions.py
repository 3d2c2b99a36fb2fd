"""Questions as somebody writes them: names of teams and keys become ids, within what whoever asks may see."""

from datetime import datetime
from math import inf

import msgspec
import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.errors import NotFound
from meter.core.reports import Asked, Question
from meter.core.reports import question as read
from meter.store import teams
from meter.store.database import Database
from meter.store.scope import within
from meter.store.tables import api_keys


def question(
    database: Database,
    asked: Asked,
    now: datetime,
    *,
    scope: Scope = EVERYTHING,
    ledger_days_max: float = inf,
) -> Question:
    """Read a question; raises `ValueError`, and `NotFound` for teams and keys that are not in scope."""
    found = read(asked, now, ledger_days_max)
    return msgspec.structs.replace(
        found,
        scope_team_id=scope.team_id,
        team_id=None if asked.team is None else teams.find(database, asked.team, scope).id,
        key_ids=None if asked.key is None else _key_ids(database, asked.key, scope),
    )


def _key_ids(database: Database, reference: str, scope: Scope) -> tuple[str, ...]:
    """Return the key of that id, or all keys of that name: one that was rotated has it more than once."""
    named = (api_keys.c.id == reference) | (api_keys.c.name == reference)
    query = sa.select(api_keys.c.id).where(named, within(scope, api_keys.c.team_id)).order_by(api_keys.c.id)
    with database.read() as connection:
        found = tuple(connection.scalars(query))
    if not found:
        raise NotFound(f"There is no key {reference!r}.", param="key")
    return found
