"""The budgets that a key falls under, for its holder: looked up once for all who ask within a second."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime

from meter.app.key_view import BudgetView
from meter.core.budget_drafts import applying, shown
from meter.core.budgets import Standing
from meter.core.clock import Clock
from meter.core.errors import MeteringUnavailable
from meter.core.keys import Grant
from meter.store.failures import DatabaseUnavailable

# Holders of keys are many, and may ask as often as they like.
FRESH_SECONDS = 1.0


class KeyBudgets:
    """Finds the budgets of keys."""

    def __init__(
        self, standings: Callable[[datetime], list[Standing]], look_ups: Executor, clock: Clock
    ) -> None:
        self._standings = standings
        self._look_ups = look_ups
        self._clock = clock
        self._looked_at = float("-inf")
        self._looking: asyncio.Future[list[Standing]] | None = None

    async def find(self, grant: Grant) -> tuple[BudgetView, ...]:
        """Return how the budgets stand that requests of a key count in; raises `MeteringUnavailable`."""
        at = self._clock.monotonic()
        if self._looking is None or at - self._looked_at >= FRESH_SECONDS:
            self._looked_at = at
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(self._look_ups, self._standings, self._clock.now())
        try:
            # Whoever leaves must not take the answer away from the others.
            found = await asyncio.shield(self._looking)
        except DatabaseUnavailable as fault:
            self._looking = None
            raise MeteringUnavailable("The budgets cannot be looked up now; try again soon.") from fault
        now = self._clock.now()
        return tuple(_view(standing, now) for standing in applying(found, grant))


def _view(standing: Standing, now: datetime) -> BudgetView:
    found = shown(standing, now)
    return BudgetView(
        owner=found.owner_kind,
        model=found.model,
        measure=found.measure,
        period=found.period,
        enforcement=found.enforcement,
        limit=found.limit,
        spent=found.spent,
        reserved=found.reserved,
        available=found.available,
        window_ends_at=found.window_end,
    )
