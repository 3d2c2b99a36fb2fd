"""Making, listing and taking away budgets: what the command line and the admin API both do."""

import secrets
from datetime import datetime

from meter.core import budget_drafts
from meter.core.budget_drafts import Draft
from meter.core.budgets import Budget, Standing
from meter.core.keys import mint_id
from meter.store import budgets, keys, teams
from meter.store.database import Database


def put(database: Database, draft: Draft, now: datetime) -> Standing:
    """Make a budget, or change the one of the same owner, measure, period and model pattern."""
    if draft.team and draft.key:
        raise ValueError("name one owner: a team or a key, or neither for the whole organisation")
    owner_id = owner = ""
    if draft.team:
        team = teams.find(database, draft.team)
        owner_id, owner = team.id, team.name
    elif draft.key:
        key = keys.find(database, draft.key)
        owner_id, owner = key.id, key.name
    budget = budget_drafts.check(draft, budget_id=mint_id(secrets.choice), owner_id=owner_id, owner=owner)
    return budgets.put(database, budget, now)


def list_all(database: Database, now: datetime) -> list[Standing]:
    """Return all budgets and how they stand."""
    return budgets.standings(database, now)


def remove(database: Database, budget_id: str) -> Budget:
    """Take a budget away."""
    return budgets.remove(database, budget_id)
