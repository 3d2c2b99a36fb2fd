"""What the upstream does in these experiments, and the truth about it: what it sent, and when."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests import fake_upstream, services, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, Received, Step, event, response, stream

CANARY_PROMPT = "canary-prompt-4e1d"
CANARY_ANSWER = "canary-answer-91c7"
CANARY_CREDENTIAL = "sk-canary-upstream-77aa"
CONTENT = b'"content":"'
PROMPT_TOKENS = 11
MODEL_SERVED = "served-model"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a request is answered: so many pieces of text, paced, with gates between if a test wants them."""

    pieces: int = 20
    pause: float = 0.02
    before_head: Gate | None = None
    before_usage: Gate | None = None
    after_usage: Gate | None = None
    filler: int = 0
    """So many bytes of comment with every piece, which say nothing and have to be carried."""
    streams: bool = True
    cut_after: int | None = None
    """The connection is reset after so many pieces; what does not stream is then not answered at all."""

    @property
    def completion_tokens(self) -> int:
        """What the upstream says at the end: more than it sent, since it counts its thoughts as well."""
        return self.pieces + 3


@dataclass
class Truth:
    """One request that reached the upstream."""

    model: str
    plan: Plan
    request: Received
    sent_at: list[float] = field(default_factory=list)
    """When each piece of text was sent; the clock is the machine's, `time.monotonic`."""

    @property
    def body(self) -> bytes:
        """What was sent of the body."""
        raw = bytes(self.request.sent)
        return wire.parse(raw).body if b"\r\n\r\n" in raw else b""


class Pause(Gate):
    """A step that takes a time, and notes when it is over."""

    def __init__(self, seconds: float, truth: Truth) -> None:
        super().__init__()
        self._seconds = seconds
        self._truth = truth

    async def wait(self) -> None:
        """Wait, on the upstream's side."""
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self._truth.sent_at.append(time.monotonic())


class Script:
    """Answers every request as the plan of its model says, and keeps the truths by model."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self._plan_of: Callable[[str], Plan] = lambda _model: Plan()
        self._truths: dict[str, list[Truth]] = {}
        self._lock = threading.Lock()

    def play(self, plan_of: Callable[[str], Plan] | Plan) -> None:
        """Forget what was, and answer as planned from now on."""
        self._plan_of = (lambda _model: plan_of) if isinstance(plan_of, Plan) else plan_of
        self.upstream.reset()
        with self._lock:
            self._truths = {}
        self.upstream.answer(self._answer)

    def forget(self, prefix: str) -> dict[str, list[Truth]]:
        """Return the truths about these models, and keep neither them nor any request."""
        with self._lock:
            found = {model: sent for model, sent in self._truths.items() if model.startswith(prefix)}
            self._truths = {model: sent for model, sent in self._truths.items() if model not in found}
            self.upstream.received.clear()
        return found

    def truths(self) -> dict[str, list[Truth]]:
        """Return what reached the upstream so far, by model."""
        with self._lock:
            return {model: list(truths) for model, truths in self._truths.items()}

    @property
    def count(self) -> int:
        """How many attempts reached the upstream."""
        return len(self.upstream.received)

    def _answer(self, request: Received) -> list[Step]:
        model = str(request.json()["model"])
        truth = Truth(model, self._plan_of(model), request)
        with self._lock:
            self._truths.setdefault(model, []).append(truth)
        return _steps(truth)


def _steps(truth: Truth) -> list[Step]:
    plan = truth.plan
    before: list[Step] = [] if plan.before_head is None else [plan.before_head]
    if not plan.streams and plan.cut_after is not None:
        return [*before, Cut(reset=True)]
    if not plan.streams:
        return [*before, response(_document(truth))]
    pieces: list[bytes | Gate] = []
    for _ in range(plan.pieces if plan.cut_after is None else plan.cut_after):
        pieces += [Pause(plan.pause, truth), _piece(truth)]
    if plan.cut_after is not None:
        return [*before, *stream(*pieces, Cut(reset=True))]
    pieces += [] if plan.before_usage is None else [plan.before_usage]
    pieces.append(event({"model": MODEL_SERVED, "choices": [], "usage": _usage(plan)}))
    pieces += [] if plan.after_usage is None else [plan.after_usage]
    return [*before, *stream(*pieces, DONE)]


def _piece(truth: Truth) -> bytes:
    filler = b":" + b"." * truth.plan.filler + b"\n\n" if truth.plan.filler else b""
    return filler + event(
        {
            "id": truth.model,
            "model": MODEL_SERVED,
            "choices": [{"index": 0, "delta": {"content": CANARY_ANSWER}}],
        }
    )


def _document(truth: Truth) -> bytes:
    message = {"role": "assistant", "content": CANARY_ANSWER}
    document = {"model": MODEL_SERVED, "choices": [{"message": message}], "usage": _usage(truth.plan)}
    return event(document).removeprefix(b"data: ")


def _usage(plan: Plan) -> dict[str, int]:
    counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": plan.completion_tokens}
    return counts | {"total_tokens": sum(counts.values())}


@contextmanager
def running() -> Iterator[Script]:
    """Run an upstream that plays scripts."""
    with fake_upstream.running(port=services.free_port()) as upstream:
        yield Script(upstream)
