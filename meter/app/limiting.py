"""Rates as a step of the admission, and what limits that are not set are."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.core.rates import Asked, rates_of
from meter.proxy.admission import Candidate, Hold
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates, Taken
from meter.settings import Settings

KEYS_REMEMBERED_MAX = 10_000

LikelyTokens = Callable[[Candidate], int]


class _Limited(NamedTuple):
    """What a request asks of the rates of its key, as a grant says them."""

    grant: Grant
    asked: list[Asked]
    """One request of each, and one token."""
    counts_tokens: bool


@dataclass(frozen=True, kw_only=True)
class Limiting:
    """What limits requests, beside budgets."""

    defaults: Defaults
    rates: Rates
    concurrency: Concurrency
    likely_tokens: LikelyTokens
    """What a request counts for in tokens a minute until what it used is known."""

    _limited: dict[str, _Limited] = field(default_factory=dict, init=False)
    """By the ids of keys."""

    @property
    def keys_remembered(self) -> int:
        """Of how many keys it remembers what limits them."""
        return len(self._limited)

    def count(self, candidate: Candidate) -> Hold | Coroutine[Any, Any, Hold] | None:
        """Count a request, and its likely tokens, in the rates of its key and its team."""
        each = self._of(candidate.grant)
        if not each.asked:
            return None
        asked = each.asked
        if each.counts_tokens:
            tokens = self.likely_tokens(candidate)
            asked = [Asked(ask.rate, tokens) if ask.rate.measure == "tokens" else ask for ask in asked]
        taken = self.rates.ask(asked)
        return _Counted(taken) if isinstance(taken, Taken) else _counted(taken)

    def _of(self, grant: Grant) -> _Limited:
        """Say what is asked for a key: of its own rates, and of its team's."""
        known = self._limited.get(grant.key_id)
        # A key that was changed has another grant.
        if known is None or known.grant is not grant:
            if len(self._limited) >= KEYS_REMEMBERED_MAX:
                self._limited.clear()
            limits, team_limits = self.defaults.fill(grant.limits, grant.team_limits)
            rates = rates_of("key", grant.key_id, limits) + rates_of("team", grant.team_id, team_limits)
            counts_tokens = any(rate.measure == "tokens" for rate in rates)
            known = _Limited(grant, [Asked(rate, 1) for rate in rates], counts_tokens)
            self._limited[grant.key_id] = known
        return known


async def _counted(taking: Awaitable[Taken]) -> Hold:
    return _Counted(await taking)


class _Counted(Hold):
    __slots__ = ("_taken",)

    def __init__(self, taken: Taken) -> None:
        self._taken: Taken | None = taken

    def settled(self, event: UsageEvent) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.settle(event.total_tokens)

    def release(self) -> None:
        if self._taken is not None:
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
