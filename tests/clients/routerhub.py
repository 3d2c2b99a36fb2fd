"""RouterHub's three examples, the answers that it gives to them, and what meter has to make of both."""

import json
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import pytest

from meter.core.events import UsageEvent
from tests.conftest import UPSTREAM_KEY
from tests.fake_upstream import DONE, Received, Step, event, response, stream

Json = dict[str, Any]

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
USAGE: Json = {
    "prompt_tokens": 14,
    "completion_tokens": 32,
    "total_tokens": 46,
    "prompt_tokens_details": {"cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
TEXT = "Metering means counting: every token, once, à chacun son dû."
TOOL_CALL: Json = {
    "id": "call_7Qx2",
    "type": "function",
    "function": {"name": "count_tokens", "arguments": '{"text": "déjà vu"}'},
}
_FLAG = '"stream_options":{"include_usage":true}'


class Example(NamedTuple):
    """One example of RouterHub's documentation: the request, and the model that answers to its name."""

    name: str
    body: Json

    @property
    def model(self) -> str:
        """The model that is asked for."""
        model: str = self.body["model"]
        return model

    @property
    def served(self) -> str:
        """The model that answers: another name, so that the two cannot be mistaken for each other."""
        return f"{self.model}-2025-05-14"

    @property
    def upstream_id(self) -> str:
        """The id of the answer."""
        return f"chatcmpl-{self.name}"


EXAMPLES = (
    Example(
        "single-turn",
        {
            "model": "anthropic/claude-sonnet-4",
            "messages": [{"role": "user", "content": "What does a metering proxy do?"}],
            "max_tokens": 256,
        },
    ),
    Example(
        "multi-turn",
        {
            "model": "google/gemini-2.5-pro",
            "messages": [
                {"role": "user", "content": "Name a French saying about dues."},
                {"role": "assistant", "content": "À chacun son dû."},
                {"role": "user", "content": "And what does it mean?"},
            ],
            "max_tokens": 512,
        },
    ),
    Example(
        "system-prompt",
        {
            "model": "openai/gpt-4.1",
            "messages": [
                {"role": "system", "content": "You answer in one sentence."},
                {"role": "user", "content": "Why count tokens?"},
            ],
            "temperature": 0.2,
            "max_tokens": 1024,
        },
    ),
)

by_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
by_answer = pytest.mark.parametrize(
    ("example", "finish_reason"),
    [pytest.param(*case, id=f"{case[0].name}-{case[1]}") for case in product(EXAMPLES, FINISH_REASONS)],
)


def completion(example: Example, finish_reason: str = "stop") -> Json:
    """Write the sample answer to an example."""
    message: Json = {"role": "assistant", "content": TEXT}
    if finish_reason == "tool_calls":
        message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return _base(example, "chat.completion", choices=[choice]) | {"usage": USAGE}


def chunks(example: Example, finish_reason: str = "stop", *, asked: bool) -> list[Json]:
    """Write the chunks of the sample answer as a caller gets them who asked for usage, or did not."""
    deltas: list[Json] = [{"content": word} for word in TEXT.partition(": ") if word]
    if finish_reason == "tool_calls":
        function: Json = TOOL_CALL["function"]
        opening = TOOL_CALL | {"index": 0, "function": function | {"arguments": ""}}
        rest = {"index": 0, "function": {"arguments": function["arguments"]}}
        deltas = [{"tool_calls": [opening]}, {"tool_calls": [rest]}]
    deltas = [{"role": "assistant", "content": ""}, *deltas]
    choices: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish_reason})
    written = [_base(example, "chat.completion.chunk", choices=[choice]) for choice in choices]
    if not asked:
        return written
    last = _base(example, "chat.completion.chunk", choices=[]) | {"usage": USAGE}
    return [*(chunk | {"usage": None} for chunk in written), last]


def events(example: Example, finish_reason: str = "stop", *, asked: bool) -> list[bytes]:
    """Write the chunks as server-sent events, with the end that every stream has."""
    return [*(event(chunk) for chunk in chunks(example, finish_reason, asked=asked)), DONE]


def answer(document: Json, status: str = "200 OK") -> list[Step]:
    """Make the upstream's answer of a document."""
    return [response(json.dumps(document).encode(), status=status)]


def answer_stream(example: Example, finish_reason: str = "stop") -> list[Step]:
    """Make the upstream's answer to a stream; meter sees to it that it is always asked for usage."""
    return stream(*events(example, finish_reason, asked=True))


def streaming(example: Example, *, asked: bool) -> Json:
    """Write an example's body for a stream; a client that does not ask for usage does not mention it."""
    return example.body | {"stream": True} | flag(asked=asked)


def flag(*, asked: bool) -> Json:
    """Write what a request for a stream has to say to ask for usage."""
    return {"stream_options": {"include_usage": True}} if asked else {}


def written(body: Json) -> bytes:
    """Write a body by hand, as the documentation does: on many lines, and in UTF-8."""
    return json.dumps(body, indent=2, ensure_ascii=False).encode()


def with_flag(body: bytes) -> bytes:
    """Return a hand-written body as meter sends it on when it has to ask for usage."""
    return body.removesuffix(b"\n}") + b"," + _FLAG.encode() + b"\n}"


def ledger_entry(
    example: Example, finish_reasons: Sequence[str] = ("stop",), *, streamed: bool = False
) -> Json:
    """Say what the ledger has to hold for the sample answer to an example."""
    return {
        "route": "chat.completions",
        "upstream": "127.0.0.1",
        "model_requested": example.model,
        "model_served": example.served,
        "stream": streamed,
        "outcome": "ok",
        "status": 200,
        "usage_source": "reported",
        "prompt_tokens": 14,
        "completion_tokens": 32,
        "cached_tokens": 6,
        "cache_write_tokens": 0,
        "reasoning_tokens": 20,
        "finish_reasons": tuple(finish_reasons),
        "service_tier": "default",
        "upstream_id": example.upstream_id,
        "anomalies": (),
        "usage_raw": USAGE,
    }


def entry_of(kept: UsageEvent) -> Json:
    """Return what the ledger holds of an event, in the same terms."""
    names = ledger_entry(EXAMPLES[0]).keys() - {"usage_raw"}
    entry: Json = {name: getattr(kept, name) for name in names}
    return entry | {"usage_raw": json.loads(kept.usage_raw) if kept.usage_raw else None}


def check_credentials(received: Received, key: str) -> None:
    """Check that the upstream saw its own key, once, and nothing of the client's."""
    sent = [value for name, value in received.headers if name.lower() == "authorization"]
    assert sent == [f"Bearer {UPSTREAM_KEY}"]
    secret = key.split("_")[2]
    assert secret not in f"{received.target} {received.headers}"
    assert secret.encode() not in received.body


def wrong(key: str) -> str:
    """Make a key that is right but for its last character."""
    return key[:-1] + ("1" if key.endswith("0") else "0")


def _base(example: Example, kind: str, *, choices: list[Json]) -> Json:
    return {
        "id": example.upstream_id,
        "object": kind,
        "created": 1_760_000_000,
        "model": example.served,
        "choices": choices,
        "system_fingerprint": None,
        "service_tier": "default",
    }
