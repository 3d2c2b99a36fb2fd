"""The account of one attempt: what was taken for it, whose it is, and how its event is settled."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from meter.core.attempts import Attempt
from meter.core.errors import MeterError
from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.proxy.admission import Admitted

CountTokens = Callable[[str], int]


class Accounting(NamedTuple):
    """What is needed of those who keep the books."""

    new_id: Callable[[], str]
    begin: Callable[[Attempt], None]
    """Take note of an attempt before it begins; raises `MeteringUnavailable`."""
    progress: Callable[[str, int], None]
    """Note how many tokens of an attempt have been emitted so far."""
    rate: Callable[[UsageEvent], UsageEvent]
    """Put the cost to what was used."""
    settle: Callable[[UsageEvent, Grant], Awaitable[None]]
    """Write a rated event at once; what it returns is done when the event is safe."""
    timed: Callable[[float, float | None], None]
    """Count the seconds that meter added to a request, and those of a stream to its first token."""
    refused: Callable[[MeterError, Grant | None], None]
    """Count a refusal, with whose request it was where that was known."""
    count_tokens: CountTokens
    estimate_prompt: Callable[[dict[str, Any]], int]


class Account:
    """One attempt's."""

    __slots__ = ("_accounting", "_admitted", "_grant", "attempt", "count_tokens", "timed")

    def __init__(self, accounting: Accounting, admitted: Admitted, grant: Grant) -> None:
        self._accounting = accounting
        self._admitted = admitted
        self._grant = grant
        self.attempt = admitted.attempt
        self.count_tokens = accounting.count_tokens
        self.timed = accounting.timed

    def begin(self) -> None:
        """Take note of the attempt before it begins; raises `MeteringUnavailable`."""
        self._accounting.begin(self.attempt)

    def progress(self, emitted_tokens: int, cut: Callable[[], None]) -> None:
        """Note how many tokens have been emitted so far; `cut` ends the attempt."""
        self._accounting.progress(self.attempt.event_id, emitted_tokens)
        self._admitted.progressed(emitted_tokens, cut)

    def settle(self, event: UsageEvent) -> Awaitable[None]:
        """Rate and write the event at once; what it returns is done when the event is safe."""
        booked = self._admitted.booked(self._accounting.rate(event))
        safe = self._accounting.settle(booked, self._grant)
        self._admitted.settled(booked)
        return safe

    def refused(self, refusal: MeterError) -> None:
        """Count a refusal that came in the place of an answer."""
        self._accounting.refused(refusal, self._grant)

    def close(self) -> None:
        """Give back what is still held; doing it again does nothing."""
        self._admitted.release()
