"""Rates as a step of the admission, and what limits that are not set are."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.core.rates import Asked, Rate, rates_of
from meter.proxy.admission import Candidate, Hold
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates, Taken
from meter.settings import Settings

KEYS_REMEMBERED_MAX = 10_000

LikelyTokens = Callable[[Candidate], int]


@dataclass(frozen=True, kw_only=True)
class Limiting:
    """What limits requests, beside budgets."""

    defaults: Defaults
    rates: Rates
    concurrency: Concurrency
    likely_tokens: LikelyTokens
    """What a request counts for in tokens a minute until what it used is known."""

    _rates: dict[str, tuple[Grant, tuple[Rate, ...]]] = field(default_factory=dict, init=False)
    """The rates of a key, and the grant that says so."""

    @property
    def keys_remembered(self) -> int:
        """Of how many keys it remembers what limits them."""
        return len(self._rates)

    def count(self, candidate: Candidate) -> Hold | Coroutine[Any, Any, Hold] | None:
        """Count a request, and its likely tokens, in the rates of its key and its team."""
        rates = self.rates_of(candidate.grant)
        if not rates:
            return None
        tokens = self.likely_tokens(candidate)
        taken = self.rates.ask([Asked(rate, 1 if rate.measure == "requests" else tokens) for rate in rates])
        return _Counted(taken) if isinstance(taken, Taken) else _counted(taken)

    def rates_of(self, grant: Grant) -> tuple[Rate, ...]:
        """Return the rates that limit a key: its own, and its team's."""
        known = self._rates.get(grant.key_id)
        # A key that was changed has another grant.
        if known is None or known[0] is not grant:
            if len(self._rates) >= KEYS_REMEMBERED_MAX:
                self._rates.clear()
            limits, team_limits = self.defaults.fill(grant.limits, grant.team_limits)
            rates = rates_of("key", grant.key_id, limits) + rates_of("team", grant.team_id, team_limits)
            known = self._rates[grant.key_id] = (grant, tuple(rates))
        return known[1]


async def _counted(taking: Awaitable[Taken]) -> Hold:
    return _Counted(await taking)


class _Counted(Hold):
    __slots__ = ("_taken",)

    def __init__(self, taken: Taken) -> None:
        self._taken = taken

    def settled(self, event: UsageEvent) -> None:
        self._taken.settle(event.total_tokens)

    def release(self) -> None:
        self._taken.give_back()


def defaults(settings: Settings) -> Defaults:
    """Return the limits of keys and teams that have none of their own."""
    return Defaults(
        key=Limits(rpm=settings.key_rpm, tpm=settings.key_tpm, concurrency=settings.key_concurrency),
        team=Limits(rpm=settings.team_rpm, tpm=settings.team_tpm),
    )


def prompt_tokens(candidate: Candidate) -> int:
    """Count a request by its prompt: what the answer takes is added when it is known."""
    return candidate.attempt.prompt_estimate
