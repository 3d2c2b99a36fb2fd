"""Rates as a step of the admission, and what limits that are not set are."""

from collections.abc import Callable
from dataclasses import dataclass

from meter.core.events import UsageEvent
from meter.core.limits import Defaults, Limits
from meter.core.rates import Asked, Measure, rates_of
from meter.proxy.admission import Candidate, Hold
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates, Taken
from meter.settings import Settings

LikelyTokens = Callable[[Candidate], int]


@dataclass(frozen=True, kw_only=True)
class Limiting:
    """What limits requests, beside budgets."""

    defaults: Defaults
    rates: Rates
    concurrency: Concurrency
    likely_tokens: LikelyTokens
    """What a request counts for in tokens a minute until what it used is known."""

    async def count(self, candidate: Candidate) -> Hold | None:
        """Count a request, and its likely tokens, in the rates of its key and its team."""
        grant = candidate.grant
        limits, team_limits = self.defaults.fill(grant.limits, grant.team_limits)
        rates = (
            *rates_of("key", grant.key_id, limits),
            *rates_of("team", grant.team_id, team_limits),
        )
        if not rates:
            return None
        amounts: dict[Measure, int] = {"requests": 1, "tokens": self.likely_tokens(candidate)}
        return _Counted(await self.rates.take([Asked(rate, amounts[rate.measure]) for rate in rates]))


class _Counted(Hold):
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
