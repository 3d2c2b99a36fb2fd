"""The one place where queries are narrowed to what an asker may see."""

from typing import Any

import sqlalchemy as sa

from meter.core.access import Scope


def within(scope: Scope, owner: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a row's owner, the column of its team's id, is in the scope."""
    return sa.true() if scope.team_id is None else owner == scope.team_id
