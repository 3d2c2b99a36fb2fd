"""A budget as people look at it: how much of it is gone, and what comes of it at this rate."""

from datetime import datetime

import msgspec

from meter.core.budget_drafts import Shown, shown
from meter.core.budgets import Standing
from meter.core.forecast import outlook


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, how it stands, and where it will stand."""

    budget: Shown
    percent: int
    """Of the limit, spent."""
    reserved_percent: int
    projected: str | None
    """What will be spent at the end of the window; `None`: nobody can tell."""
    projected_percent: int | None
    reached_at: datetime | None
    """When the limit is reached, in the budget's time zone; `None`: not in this window."""

    @property
    def is_spent(self) -> bool:
        """Say whether the limit has been reached."""
        return self.percent >= 100  # noqa: PLR2004 (per cent)


def prospect(standing: Standing, now: datetime) -> Prospect:
    """Look at where a budget stands, and at where it is going."""
    budget = standing.budget
    told = shown(standing, now)
    ahead = outlook(standing.spent, budget.limit, standing.start, standing.end, now)
    return Prospect(
        budget=told,
        percent=_percent(standing.spent, budget.limit),
        reserved_percent=_percent(standing.reserved, budget.limit),
        projected=told.projected,
        projected_percent=None if ahead is None else _percent(ahead.projected, budget.limit),
        reached_at=told.reached_at,
    )


def _percent(amount: int, limit: int) -> int:
    # Of a limit of nothing all is gone. Rounded down, so that 100 means that it is.
    return 100 * amount // limit if limit else 100
