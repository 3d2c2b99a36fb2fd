"""The key holder's own view: what its key may do, and how much of it is used. Nothing about others."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from meter.app.limiting import Limiting
from meter.core.clock import Clock
from meter.core.keys import Grant
from meter.core.limits import Limits, common_models
from meter.core.rates import Asked, Owner, Rate, rates_of


class RateView(msgspec.Struct, frozen=True):
    """The rate that has least left, of the key's own and its team's."""

    limit: int
    remaining: int
    reset_at: datetime
    """When nothing of it is used any more, if nothing is added."""
    owner: Owner


class RatesView(msgspec.Struct, frozen=True):
    """What may pass in a minute; null is without a limit."""

    requests: RateView | None = None
    tokens: RateView | None = None


class ConcurrencyView(msgspec.Struct, frozen=True):
    """The requests under way in the process that answers; a limit of null is none."""

    limit: int | None
    running: int
    owner: Owner


class BudgetView(msgspec.Struct, frozen=True):
    """A budget that requests with this key count in; amounts of money are decimal USD."""

    owner: str
    """`org`, `team` or `key`."""
    model: str
    """The pattern of requested models that it is for; empty is any."""
    measure: str
    period: str
    enforcement: str
    limit: str
    spent: str
    reserved: str
    available: str
    window_ends_at: datetime | None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do."""

    id: str
    name: str
    team: str
    expires_at: datetime | None
    models: tuple[str, ...] | None
    """What both the key and its team allow; null is every model."""
    rates: RatesView
    concurrency: ConcurrencyView
    budgets: tuple[BudgetView, ...]


FindBudgets = Callable[[Grant], Awaitable[tuple[BudgetView, ...]]]


@dataclass(frozen=True)
class KeyViewer:
    """Shows a key to its holder."""

    limiting: Limiting
    find_budgets: FindBudgets
    clock: Clock

    async def show(self, grant: Grant) -> bytes:
        """Return the view of a grant, as JSON."""
        limits, team_limits = self.limiting.defaults.fill(grant.limits, grant.team_limits)
        view = KeyView(
            id=grant.key_id,
            name=grant.key_name,
            team=grant.team_name,
            expires_at=grant.expires_at,
            models=common_models(limits.models, team_limits.models),
            rates=await self._rates(
                [*rates_of("key", grant.key_id, limits), *rates_of("team", grant.team_id, team_limits)]
            ),
            concurrency=self._concurrency(grant, limits, team_limits),
            budgets=await self.find_budgets(grant),
        )
        return msgspec.json.encode(view)

    async def _rates(self, rates: Iterable[Rate]) -> RatesView:
        found: dict[str, RateView] = {}
        for rate in rates:
            view = await self._rate(rate)
            other = found.get(rate.measure)
            if other is None or view.remaining < other.remaining:
                found[rate.measure] = view
        return RatesView(**found)

    async def _rate(self, rate: Rate) -> RateView:
        standing = await self.limiting.rates.standing(Asked(rate, 1))
        reset_at = self.clock.now() + timedelta(seconds=standing.reset_seconds)
        return RateView(rate.limit, max(0, rate.limit - standing.used), reset_at, rate.owner)

    def _concurrency(self, grant: Grant, limits: Limits, team_limits: Limits) -> ConcurrencyView:
        running = self.limiting.concurrency.running
        own = ConcurrencyView(limits.concurrency or None, running(grant.key_id), "key")
        limit = team_limits.concurrency
        if not limit:
            return own
        of_team = ConcurrencyView(limit, running(grant.team_id), "team")
        closer = own.limit is None or limit - of_team.running < own.limit - own.running
        return of_team if closer else own
