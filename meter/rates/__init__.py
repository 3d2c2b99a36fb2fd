"""Rates: requests and tokens a minute, counted in memory, and in Redis where several servers share them.

The memory counts always. While Redis answers, it decides; while it does not, the memory does, with what this
process has let pass. Who asks never waits for Redis longer than half a second, and nobody at all while
it is known to be away.
"""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from meter.core.clock import Clock
from meter.core.rates import Asked, Entry, Rate, Standing, Windows, refusal


class CountersAwayError(Exception):
    """The shared counters gave no answer in time."""


class Shared(Protocol):
    """Counters that several servers share: Redis's are in `meter.rates.shared`."""

    @property
    def here(self) -> bool:
        """Whether they answered when they were asked last."""

    async def take(self, asked: Sequence[Asked]) -> Asked | None:
        """Count all of this, or none and return the first that has no room; raises `CountersAwayError`."""

    async def standing(self, asked: Asked) -> Standing:
        """Say how a rate stands; raises `CountersAwayError`."""

    def owe(self, name: str, amount: int) -> None:
        """Correct a counter soon; while they are away there is nothing to correct."""

    async def open(self) -> None:
        """Look for them before anything is counted."""

    async def run(self) -> None:
        """Look for them while they are away, and write corrections, until cancelled."""


class Taken:
    """What an attempt has taken of its rates."""

    __slots__ = ("_asked", "_correct", "_entries")

    def __init__(self, asked: Sequence[Asked], entries: Sequence[Entry], correct: "Correct") -> None:
        self._asked = asked
        self._entries = entries
        self._correct = correct

    def settle(self, tokens: int) -> None:
        """Count the tokens that were used instead of those that were asked for."""
        for (rate, amount), entry in zip(self._asked, self._entries, strict=True):
            if rate.measure == "tokens" and tokens != amount:
                self._correct(rate, tokens - amount, entry)
        self._asked = self._entries = ()

    def give_back(self) -> None:
        """Count none of it, unless it was settled: the attempt never began."""
        for (rate, amount), entry in zip(self._asked, self._entries, strict=True):
            self._correct(rate, -amount, entry)
        self._asked = self._entries = ()


Correct = Callable[[Rate, int, Entry], None]


class Rates:
    """Admits what its rates have room for."""

    def __init__(self, *, clock: Clock, shared: Shared | None) -> None:
        self._clock = clock
        self._shared = shared
        self._windows = Windows()

    async def take(self, asked: Sequence[Asked]) -> Taken:
        """Count all of this, or none of it and raise `RateLimitExceeded`."""
        taken = self.ask(asked)
        return taken if isinstance(taken, Taken) else await taken

    def ask(self, asked: Sequence[Asked]) -> Taken | Coroutine[Any, Any, Taken]:
        """Do the same at once, unless Redis has to be asked: then the coroutine that is returned does it."""
        shared = self._shared
        if shared is not None and shared.here:
            return self._take_shared(shared, asked)
        return self._take_here(asked)

    def _take_here(self, asked: Sequence[Asked]) -> Taken:
        now = self._clock.monotonic()
        refused = self._windows.refused(asked, now)
        if refused is not None:
            beside = _beside(refused, asked)
            raise refusal(refused, {each.rate: self._windows.standing(each, now) for each in beside})
        return Taken(asked, self._windows.add_all(asked, now), self._put_right)

    async def _take_shared(self, shared: Shared, asked: Sequence[Asked]) -> Taken:
        try:
            refused = await shared.take(asked)
        except CountersAwayError:
            return self._take_here(asked)
        if refused is not None:
            beside = _beside(refused, asked)
            raise refusal(refused, {each.rate: await self.standing(each) for each in beside})
        now = self._clock.monotonic()
        entries = [self._windows.add(rate, amount, now) for rate, amount in asked]
        return Taken(asked, entries, self._put_right)

    async def standing(self, asked: Asked) -> Standing:
        """Say how a rate stands, and when so much will fit."""
        if self._shared is not None and self._shared.here:
            with suppress(CountersAwayError):
                return await self._shared.standing(asked)
        return self._windows.standing(asked, self._clock.monotonic())

    def _put_right(self, rate: Rate, amount: int, entry: Entry) -> None:
        now = self._clock.monotonic()
        if amount > 0:
            self._windows.add(rate, amount, now)
        elif amount < 0:
            self._windows.take_back(rate, -amount, entry, now)
        if amount and self._shared is not None:
            self._shared.owe(rate.name, amount)


def _beside(refused: Asked, asked: Sequence[Asked]) -> list[Asked]:
    """List what is asked of the same owner's rates."""
    return [each for each in asked if each.rate.owner == refused.rate.owner]
