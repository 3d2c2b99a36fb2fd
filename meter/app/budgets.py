"""Making, listing and taking away budgets: what the command line and the admin API both do."""

import secrets
from datetime import datetime

from meter.app.actions import signed
from meter.core import budget_drafts
from meter.core.access import EVERYTHING, Scope
from meter.core.budget_drafts import Draft, Shown, shown
from meter.core.budgets import Budget
from meter.core.keys import mint_id
from meter.store import allowances, budgets, keys, teams
from meter.store.database import Database


def put(database: Database, actor: str, draft: Draft) -> Shown:
    """Make a budget, or change the one of the same owner, measure, period and model pattern."""
    if draft.team is not None and draft.key is not None:
        raise ValueError("name one owner: a team or a key, or neither for the whole organisation")
    owner_id = owner = ""
    if draft.team is not None:
        team = teams.find(database, draft.team)
        owner_id, owner = team.id, team.name
    elif draft.key is not None:
        key = keys.first_of_line(database, draft.key)
        owner_id, owner = key.id, key.name
    budget = budget_drafts.check(draft, budget_id=mint_id(secrets.choice), owner_id=owner_id, owner=owner)
    by = signed(actor)
    return shown(budgets.put(database, budget, by), by.at)


def list_all(database: Database, now: datetime, scope: Scope = EVERYTHING) -> list[Shown]:
    """Return budgets and how they stand."""
    return [shown(standing, now) for standing in budgets.standings(database, now, scope)]


def remove(database: Database, actor: str, budget_id: str) -> Budget:
    """Take a budget away."""
    return budgets.remove(database, budget_id, signed(actor))


def write_off(database: Database, actor: str, holder: str) -> int:
    """Free what a process holds whose journal is lost; returns how many allowances those were."""
    return allowances.write_off(database, holder, signed(actor))
