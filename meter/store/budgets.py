"""Budgets in the database: what there are, and how they stand."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.alerts import Change
from meter.core.audit import Signature
from meter.core.budgets import Budget, OwnerKind, Standing
from meter.core.errors import NotFound
from meter.store import audit, thresholds, windows
from meter.store.database import Database
from meter.store.scope import within
from meter.store.tables import api_keys, budget_windows, budgets, teams

_IDENTITY = ("owner_kind", "owner_id", "measure", "period", "model")
_CHANGED = ("tz", "limit", "enforcement", "thresholds", "updated_at")
# Whose viewers see it: the team's, or that of the key.
_TEAM = sa.case((budgets.c.owner_kind == OwnerKind.TEAM, budgets.c.owner_id), else_=api_keys.c.team_id)
_OF_KEY = budgets.c.owner_kind == OwnerKind.KEY
_SUCCESSORS = api_keys.alias("successors")
# A line for each key that took over from the owner, or one.
_NAMED = (
    sa.select(
        budgets,
        sa.func.coalesce(teams.c.name, _SUCCESSORS.c.name, api_keys.c.name, "").label("owner"),
        _SUCCESSORS.c.id.label("successor"),
    )
    .outerjoin(teams, (budgets.c.owner_kind == OwnerKind.TEAM) & (teams.c.id == budgets.c.owner_id))
    .outerjoin(api_keys, _OF_KEY & (api_keys.c.id == budgets.c.owner_id))
    .outerjoin(_SUCCESSORS, _OF_KEY & (_SUCCESSORS.c.first_id == budgets.c.owner_id))
    .order_by(
        budgets.c.owner_kind,
        budgets.c.owner_id,
        budgets.c.created_at,
        budgets.c.id,
        _SUCCESSORS.c.created_at,
    )
)

_READ = tuple(name for name in Budget.__struct_fields__ if name in _NAMED.selected_columns)
_values = attrgetter(*_READ)
_id_of = attrgetter("id")


def put(database: Database, budget: Budget, by: Signature) -> Standing:
    """Make a budget, or change the one of the same owner, measure, period and model pattern.

    Its window begins with what the ledger holds, so that nothing is reset by a change.
    """
    row = {name: _stored(getattr(budget, name)) for name in Budget.__struct_fields__ if name in budgets.c}
    statement = database.insert(budgets).values(row | {"created_at": by.at, "updated_at": by.at})
    changed = {name: statement.excluded[name] for name in _CHANGED}
    statement = statement.on_conflict_do_update(index_elements=_IDENTITY, set_=changed)
    with database.write() as connection:
        windows.exclude_appends(connection)
        before = _find(connection, budget)
        connection.execute(statement)
        found = _find(connection, budget)
        if found is None:
            raise NotFound("The budget went away while it was being made.", param="budget")
        if before is not None and before.tz != found.tz:
            # Its windows begin and end at other times now.
            connection.execute(sa.delete(budget_windows).where(budget_windows.c.budget_id == found.id))
        audit.note(connection, by, "budget.set", found.id, **msgspec.structs.asdict(found))
        window = windows.row_of(database, connection, found, by.at)
        # What has been spent already may be worth telling, by the limit of now.
        thresholds.raise_reached(database, connection, [Change(found, window.id, 0, window.spent)], by.at)
        return windows.standing_of(found, window)


def load(database: Database) -> list[Budget]:
    """Return all budgets, the organisation's, keys' and teams' together."""
    with database.read() as connection:
        return read(connection)


def read(connection: sa.Connection) -> list[Budget]:
    """Return all budgets within a transaction."""
    return _read(connection, _NAMED)


def standings(database: Database, now: datetime, scope: Scope = EVERYTHING) -> list[Standing]:
    """Return how budgets stand in their windows of now: all, or those of one team and its keys."""
    with database.write() as connection:
        windows.share_appends(connection)
        seen = _read(connection, _NAMED.where(within(scope, _TEAM)))
        return windows.standings(database, connection, seen, now)


def remove(database: Database, budget_id: str, by: Signature) -> Budget:
    """Take a budget away, with its windows and what processes hold of them."""
    with database.write() as connection:
        windows.exclude_appends(connection)
        found = next((each for each in read(connection) if each.id == budget_id), None)
        if found is None:
            raise NotFound(f"There is no budget {budget_id!r}; see: meter budgets list", param="budget")
        connection.execute(sa.delete(budgets).where(budgets.c.id == budget_id))
        audit.note(connection, by, "budget.remove", budget_id, **msgspec.structs.asdict(found))
    return found


def _find(connection: sa.Connection, budget: Budget) -> Budget | None:
    same = (budgets.c[name] == _stored(getattr(budget, name)) for name in _IDENTITY)
    return next(iter(_read(connection, _NAMED.where(*same))), None)


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[Budget]:
    lines = groupby(connection.execute(query), key=_id_of)
    return [_budget(list(rows)) for _, rows in lines]


def _budget(rows: Sequence[sa.Row[Any]]) -> Budget:
    values = dict(zip(_READ, _values(rows[-1]), strict=True))
    values["successors"] = [row.successor for row in rows if row.successor is not None]
    found: Budget = msgspec.convert(values, Budget)
    return found


def _stored(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
