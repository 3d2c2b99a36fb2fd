"""Admission: what a request has to pass between its key and its attempt, in order.

Each step raises a `MeterError` to refuse, or returns what it took: at once, or where somebody has to be asked
first, by a coroutine. What an earlier step took is given back when a later one refuses, and when the attempt
has ended, however it ends. A new limit is a new step in `meter/app/`.
"""

import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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

    __slots__ = ()

    listens: ClassVar[bool] = False
    """Whether it overrides more than `release`: found out once a class, because hardly any does."""

    def __init_subclass__(cls) -> None:
        told = ("noted", "progressed", "booked", "settled")
        cls.listens = any(getattr(cls, name) is not getattr(Hold, name) for name in told)

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
Step = Callable[[Candidate], Hold | Coroutine[Any, Any, Hold | None] | None]


class Admitted:
    """An admitted request: its attempt, and everything that the steps have taken for it."""

    __slots__ = ("_holds", "_listening", "attempt")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._holds: list[Hold] = []
        self._listening: list[Hold] = []

    def add(self, hold: Hold) -> None:
        """Hold something more."""
        self._holds.append(hold)
        if hold.listens:
            self._listening.append(hold)
            self.attempt = hold.noted(self.attempt)

    def progressed(self, emitted_tokens: int, cut: Callable[[], None]) -> None:
        """Have every step take note of how far a stream has come."""
        for hold in self._listening:
            try:
                hold.progressed(emitted_tokens, cut)
            except Exception:
                log.exception(_KEPT_BACK)

    def booked(self, event: UsageEvent) -> UsageEvent:
        """Have every step put on the event what the ledger has to know."""
        for hold in self._listening:
            event = hold.booked(event)
        return event

    def settled(self, event: UsageEvent) -> None:
        """Have every step take note of what was used, and give everything back."""
        for hold in self._listening:
            try:
                hold.settled(event)
            except Exception:
                log.exception(_KEPT_BACK)
        self.release()

    def release(self) -> None:
        """Give everything back, the last taken first; doing it again does nothing."""
        self._listening.clear()
        holds = self._holds
        while holds:
            try:
                holds.pop().release()
            except Exception:
                log.exception(_KEPT_BACK)


@dataclass(frozen=True)
class Admission:
    """The steps, in the order in which they are asked."""

    steps: tuple[Step, ...]

    async def admit(self, candidate: Candidate) -> Admitted:
        """Pass every step; raises the refusal of the first that does not admit."""
        admitted = self.enter(candidate)
        return admitted if isinstance(admitted, Admitted) else await admitted

    def enter(self, candidate: Candidate) -> Admitted | Coroutine[Any, Any, Admitted]:
        """Do the same at once where nobody has to be asked; else the coroutine that is returned does it.

        It has to be awaited at once, because it gives back what was taken if it is cancelled.
        """
        admitted = Admitted(candidate.attempt)
        steps = iter(self.steps)
        try:
            for step in steps:
                hold = step(candidate)
                if isinstance(hold, Hold):
                    admitted.add(hold)
                elif hold is not None:
                    return _wait(admitted, hold, candidate, steps)
        except BaseException:
            admitted.release()
            raise
        return admitted


async def _wait(
    admitted: Admitted,
    asking: Coroutine[Any, Any, Hold | None],
    candidate: Candidate,
    steps: Iterator[Step],
) -> Admitted:
    """Wait for a step, and pass those that follow it."""
    try:
        hold = await asking
        if hold is not None:
            admitted.add(hold)
        for step in steps:
            found = step(candidate)
            hold = found if found is None or isinstance(found, Hold) else await found
            if hold is not None:
                admitted.add(hold)
    except BaseException:
        # A client that leaves cancels the waiting for a step; what was taken goes back all the same.
        admitted.release()
        raise
    return admitted


def allow_models(candidate: Candidate) -> None:
    """Admit the models that the key and its team may use."""
    grant = candidate.grant
    models, team_models = grant.limits.models, grant.team_limits.models
    if models is not None:
        _check_model("key", models, candidate.facts.model)
    if team_models is not None:
        _check_model("team", team_models, candidate.facts.model)


def _check_model(owner: str, models: tuple[str, ...], model: str) -> None:
    if not allows(models, model):
        raise ModelNotAllowed(
            f"This {owner} may not use the model {model!r}; it may use: {_named(models)}.", param="model"
        )


def _named(models: tuple[str, ...]) -> str:
    more = len(models) - MODELS_NAMED_MAX
    return ", ".join(models[:MODELS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
