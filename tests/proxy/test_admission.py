"""Admission: steps in their order, and nothing that they take is ever kept."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import pytest

from meter.core.attempts import Attempt, Ending, conclude
from meter.core.errors import MeterError, MeteringUnavailable, ModelNotAllowed
from meter.core.events import Outcome, UsageEvent
from meter.core.keys import Grant
from meter.core.limits import Limits
from meter.core.request import RequestFacts
from meter.proxy.admission import Admission, Admitted, Candidate, Hold, Step, allow_models

ATTEMPT = Attempt(
    event_id="0192a000-0000-7000-8000-000000000000",
    started_at=datetime(2026, 11, 25, tzinfo=UTC),
    team_id="t",
    key_id="k",
    route="chat.completions",
    upstream="default",
    model="openai/gpt-4.1",
    stream=False,
    prompt_estimate=7,
)
GRANT = Grant(key_id="k", key_name="k", team_id="t", team_name="t")
EVENT = conclude(ATTEMPT, Ending(outcome=Outcome.UNREACHABLE), None)


def candidate(grant: Grant = GRANT) -> Candidate:
    """Ask for the model of the attempt."""
    facts = RequestFacts(
        ATTEMPT.model, stream=False, end_user=None, service_tier=None, body_bytes=0, document={}
    )
    return Candidate(ATTEMPT, grant, facts)


class Noted(Hold):
    """Writes down what happens to it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def noted(self, attempt: Attempt) -> Attempt:
        """Leave its name on the attempt."""
        return msgspec.structs.replace(attempt, tags=(*attempt.tags, self.name))

    def settled(self, event: UsageEvent) -> None:
        """Write down that it was told what was used."""
        self.notes.append(f"{self.name} settled {event.outcome}")

    def release(self) -> None:
        """Write down that it was given back."""
        self.notes.append(f"{self.name} released")


def taking(hold: Hold) -> Step:
    """Make a step that takes this."""

    async def step(_: Candidate) -> Hold:
        return hold

    return step


def failing(act: Callable[[], Awaitable[None]]) -> Step:
    """Make a step that takes nothing and does something else."""

    async def step(_: Candidate) -> None:
        await act()

    return step


async def refuse() -> None:
    """Refuse."""
    raise MeteringUnavailable("no")


def test_what_was_taken_is_told_of_the_event_and_given_back() -> None:
    """Every step hears what was used, then everything goes back in reverse, once."""
    notes: list[str] = []
    admission = Admission((taking(Noted("a", notes)), allow_models, taking(Noted("b", notes))))

    admitted = asyncio.run(admission.admit(candidate()))
    admitted.settled(EVENT)
    admitted.settled(EVENT)
    admitted.release()

    assert admitted.attempt.tags == ("a", "b")
    assert notes == ["a settled unreachable", "b settled unreachable", "b released", "a released"]


def test_a_refusal_gives_back_what_earlier_steps_took() -> None:
    """Later steps are not asked, and earlier ones keep nothing."""
    notes: list[str] = []
    admission = Admission((taking(Noted("a", notes)), failing(refuse), taking(Noted("b", notes))))

    with pytest.raises(MeterError):
        asyncio.run(admission.admit(candidate()))

    assert notes == ["a released"]


def test_a_cancelled_admission_gives_back_what_it_took() -> None:
    """Whoever is cancelled while a step waits keeps nothing."""
    notes: list[str] = []

    async def run() -> None:
        waiting = asyncio.Event()

        async def wait() -> None:
            waiting.set()
            await asyncio.Event().wait()

        admission = Admission((taking(Noted("a", notes)), failing(wait)))
        task = asyncio.create_task(admission.admit(candidate()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())

    assert notes == ["a released"]


def test_what_need_not_wait_is_admitted_at_once() -> None:
    """Where no step waits, there is nothing to wait for, not even an event loop; nor for a refusal."""
    notes: list[str] = []

    def refuse_at_once(_: Candidate) -> None:
        raise MeteringUnavailable("no")

    steps: tuple[Step, ...] = (lambda _: Noted("a", notes), allow_models, lambda _: Noted("b", notes))
    admitted = Admission(steps).enter(candidate())
    assert isinstance(admitted, Admitted)
    assert admitted.attempt.tags == ("a", "b")
    admitted.release()
    with pytest.raises(MeteringUnavailable):
        Admission((*steps, refuse_at_once)).enter(candidate())

    assert notes == ["b released", "a released"] * 2


def test_steps_that_wait_and_steps_that_do_not_keep_their_order() -> None:
    """Behind a step that waits, each of the others is asked in its turn."""
    notes: list[str] = []
    at_once: Step = lambda _: Noted("a", notes)  # noqa: E731 (one of several)
    steps = (at_once, taking(Noted("b", notes)), lambda _: Noted("c", notes), taking(Noted("d", notes)))

    waiting = Admission(steps).enter(candidate())
    assert not isinstance(waiting, Admitted)
    admitted = asyncio.run(waiting)
    admitted.settled(EVENT)

    assert admitted.attempt.tags == ("a", "b", "c", "d")
    assert notes == [f"{name} settled unreachable" for name in "abcd"] + [
        f"{name} released" for name in "dcba"
    ]


@pytest.mark.parametrize("name", ["noted", "progressed", "booked", "settled", "release"])
def test_a_hold_hears_what_it_asks_for(name: str) -> None:
    """Whichever of its methods a step overrides, also by inheritance, is called."""
    heard: list[str] = []

    def hear(_: Hold, value: object, *_cut: object) -> object:
        heard.append(name)
        return value

    def release(_: Hold) -> None:
        heard.append(name)

    base = type("Hears", (Hold,), {name: release if name == "release" else hear})
    admitted = Admission((lambda _: type("Inherits", (base,), {})(),)).enter(candidate())
    assert isinstance(admitted, Admitted)
    admitted.progressed(7, lambda: None)
    assert admitted.booked(EVENT) is EVENT
    admitted.settled(EVENT)

    assert heard == [name]


def test_one_steps_fault_keeps_nothing_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in giving back is logged, and the others give back all the same."""
    notes: list[str] = []

    class Broken(Hold):
        def release(self) -> None:
            raise RuntimeError("broken")

    admission = Admission((taking(Noted("a", notes)), taking(Broken())))

    asyncio.run(admission.admit(candidate())).release()

    assert notes == ["a released"]
    assert "could not be given back" in caplog.text


@pytest.mark.parametrize(
    ("limits", "team_limits", "owner"),
    [
        (Limits(models=("openai/*",)), Limits(models=("openai/gpt-4.1",)), None),
        (Limits(models=("anthropic/*",)), Limits(), "key"),
        (Limits(), Limits(models=("anthropic/*",)), "team"),
        (Limits(models=("openai/*",)), Limits(models=("anthropic/*",)), "team"),
    ],
)
def test_a_model_has_to_be_on_both_lists(limits: Limits, team_limits: Limits, owner: str | None) -> None:
    """The refusal names the model, whose list it is, and what it allows."""
    grant = msgspec.structs.replace(GRANT, limits=limits, team_limits=team_limits)
    admission = Admission((allow_models,))

    if owner is None:
        asyncio.run(admission.admit(candidate(grant)))
        return
    with pytest.raises(ModelNotAllowed) as refused:
        asyncio.run(admission.admit(candidate(grant)))

    assert refused.value.message == (
        f"This {owner} may not use the model 'openai/gpt-4.1'; it may use: anthropic/*."
    )
    assert refused.value.param == "model"


def test_a_long_list_is_not_repeated_in_full() -> None:
    """The refusal names twenty models and how many more there are."""
    models = tuple(f"m{each}" for each in range(25))
    grant = msgspec.structs.replace(GRANT, limits=Limits(models=models))

    with pytest.raises(ModelNotAllowed, match="m19 and 5 more"):
        asyncio.run(Admission((allow_models,)).admit(candidate(grant)))
