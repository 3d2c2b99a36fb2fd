"""Admission: what a request has to pass between its key and its attempt, in order.

Each step raises a `MeterError` to refuse, or returns what it took. What an earlier step took is given back
when a later one refuses, and when the attempt has ended, however it ends. A new limit is a new step in
`meter/app/`.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from meter.core.attempts import Attempt
from meter.core.errors import ModelNotAllowed
from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.core.limits import allows
from meter.core.request import RequestFacts

MODELS_NAMED_MAX = 20

# One step's fault must not keep the others from giving back what they hold.
_KEPT_BACK = "what an attempt held could not be given back"

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A request that asks for admission."""

    attempt: Attempt
    """The attempt that it would be: its id, model, upstream, and the estimate of its prompt."""
    grant: Grant
    facts: RequestFacts


class Hold:
    """What a step has taken for an attempt; a step overrides what concerns it."""

    def noted(self, attempt: Attempt) -> Attempt:
        """Return the attempt with what the journal has to know of this, before it begins."""
        return attempt

    def progressed(self, emitted_tokens: int, cut: Callable[[], None]) -> None:
        """Take note of how far a stream has come, now and then; `cut` ends it."""

    def booked(self, event: UsageEvent) -> UsageEvent:
        """Return the event with what the ledger has to know of this, before it is written."""
        return event

    def settled(self, event: UsageEvent) -> None:
        """Take note of what was used and what it cost; called at most once, before `release`."""

    def release(self) -> None:
        """Give back what is still held; called once, whether or not the attempt ever began."""


# A step that has nothing to hold returns `None`.
Step = Callable[[Candidate], Awaitable[Hold | None]]


class Admitted:
    """An admitted request: its attempt, and everything that the steps have taken for it."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._holds: list[Hold] = []

    def add(self, hold: Hold) -> None:
        """Hold something more."""
        self._holds.append(hold)
        self.attempt = hold.noted(self.attempt)

    def progressed(self, emitted_tokens: int, cut: Callable[[], None]) -> None:
        """Have every step take note of how far a stream has come."""
        for hold in self._holds:
            try:
                hold.progressed(emitted_tokens, cut)
            except Exception:
                log.exception(_KEPT_BACK)

    def booked(self, event: UsageEvent) -> UsageEvent:
        """Have every step put on the event what the ledger has to know."""
        for hold in self._holds:
            event = hold.booked(event)
        return event

    def settled(self, event: UsageEvent) -> None:
        """Have every step take note of what was used, and give everything back."""
        for hold in self._holds:
            try:
                hold.settled(event)
            except Exception:
                log.exception(_KEPT_BACK)
        self.release()

    def release(self) -> None:
        """Give everything back, the last taken first; doing it again does nothing."""
        while self._holds:
            try:
                self._holds.pop().release()
            except Exception:
                log.exception(_KEPT_BACK)


@dataclass(frozen=True)
class Admission:
    """The steps, in the order in which they are asked."""

    steps: tuple[Step, ...]

    async def admit(self, candidate: Candidate) -> Admitted:
        """Pass every step; raises the refusal of the first that does not admit."""
        admitted = Admitted(candidate.attempt)
        try:
            for step in self.steps:
                hold = await step(candidate)
                if hold is not None:
                    admitted.add(hold)
        except BaseException:
            # A client that leaves cancels the waiting for a step; what was taken goes back all the same.
            admitted.release()
            raise
        return admitted


async def allow_models(candidate: Candidate) -> None:
    """Admit the models that the key and its team may use."""
    grant, model = candidate.grant, candidate.facts.model
    for owner, models in (("key", grant.limits.models), ("team", grant.team_limits.models)):
        if not allows(models, model):
            raise ModelNotAllowed(
                f"This {owner} may not use the model {model!r}; it may use: {_named(models or ())}.",
                param="model",
            )


def _named(models: tuple[str, ...]) -> str:
    more = len(models) - MODELS_NAMED_MAX
    return ", ".join(models[:MODELS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
