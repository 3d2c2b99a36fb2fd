"""Limits in the database: columns of keys and of teams."""

from typing import Any

import sqlalchemy as sa

from meter.core.limits import LIMITS
from meter.store.tables import teams

# The team's columns beside the key's, under names of their own.
TEAM_LIMITS = tuple(teams.c[name].label(f"team_{name}") for name in LIMITS)


def limits_of(row: sa.Row[Any], prefix: str = "") -> dict[str, Any]:
    """Read the limits of a row by their names; those of a key's team have the prefix `team_`."""
    found = {name: getattr(row, prefix + name) for name in LIMITS}
    # JSON has lists only, and values are immutable.
    return found | {"models": None if found["models"] is None else tuple(found["models"])}
