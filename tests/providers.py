"""Providers' streams, as they are with and without `include_usage`."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.fake_upstream import DONE, Received, Step, event, stream

USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 32,
    "total_tokens": 46,
    "prompt_tokens_details": {"cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
# A text that looks like what is taken out must come through whole.
WORDS = ("Hello", ' the "usage":null ', '{"choices":[],"usage":{"total_tokens":1}}')

Chunks = Callable[[bool], list[bytes]]


def chunk(choices: list[Any], **members: Any) -> dict[str, Any]:
    """Write a chunk of a completion."""
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "served-model",
    }
    return base | {"choices": choices} | members


def delta(text: str) -> dict[str, Any]:
    """Write a choice that adds text."""
    return {"index": 0, "delta": {"content": text}, "finish_reason": None}


FINISH = {"index": 0, "delta": {}, "finish_reason": "stop"}


def openai(asked: bool) -> list[bytes]:
    """Send null usage on every chunk when asked, and the usage on a chunk of its own."""
    silent: dict[str, Any] = {"usage": None} if asked else {}
    chunks = [event(chunk([delta(word)]) | silent | {"obfuscation": "xK9"}) for word in WORDS]
    chunks.append(event(chunk([FINISH]) | silent))
    return [*chunks, *([event(chunk([], usage=USAGE))] if asked else []), DONE]


def routerhub(asked: bool) -> list[bytes]:
    """Send the usage on a last chunk when asked, and nothing elsewhere."""
    chunks = [event(chunk([delta(word)])) for word in WORDS]
    chunks.append(event(chunk([FINISH])))
    last = event(chunk([], usage=USAGE, system_fingerprint=None, service_tier="default"))
    return [*chunks, *([last] if asked else []), DONE]


def openrouter(_asked: bool) -> list[bytes]:
    """Send comments, and the usage always, on a chunk that has a choice."""
    comment = b": OPENROUTER PROCESSING\n\n"
    chunks = [comment, *(event(chunk([delta(word)], provider="x")) for word in WORDS), comment]
    return [*chunks, event(chunk([FINISH])), event(chunk([delta("")], usage=USAGE | {"cost": 0.00006})), DONE]


def groq(_asked: bool) -> list[bytes]:
    """Send the usage always, twice on the finishing chunk."""
    chunks = [event(chunk([delta(word)])) for word in WORDS]
    return [*chunks, event(chunk([FINISH], usage=USAGE, x_groq={"id": "req", "usage": USAGE})), DONE]


def moonshot(asked: bool) -> list[bytes]:
    """Send the usage always in the finishing choice, and when asked on a chunk of its own too."""
    chunks = [event(chunk([delta(word)])) for word in WORDS]
    chunks.append(event(chunk([FINISH | {"usage": USAGE}])))
    return [*chunks, *([event(chunk([], usage=USAGE))] if asked else []), DONE]


def vllm(asked: bool) -> list[bytes]:
    """Send the usage on a chunk of its own when asked, and no nulls."""
    chunks = [event(chunk([delta(word)])) for word in WORDS]
    chunks.append(event(chunk([FINISH | {"token_ids": None}])))
    return [*chunks, *([event(chunk([], usage=USAGE))] if asked else []), DONE]


def crlf(asked: bool) -> list[bytes]:
    """Send as OpenAI does, framed with CRLF."""
    return [each.replace(b"\n\n", b"\r\n\r\n") for each in openai(asked)]


PROVIDERS: dict[str, Chunks] = {
    "openai": openai,
    "routerhub": routerhub,
    "openrouter": openrouter,
    "groq": groq,
    "moonshot": moonshot,
    "vllm": vllm,
    "crlf": crlf,
}
SENDS_UNASKED = {"openrouter", "groq", "moonshot"}


def answering(chunks: Chunks) -> Callable[[Received], Sequence[Step]]:
    """Answer as a provider does, by what the request asks."""

    def answer(request: Received) -> Sequence[Step]:
        options = request.json().get("stream_options") or {}
        return stream(*chunks(options.get("include_usage", False)))

    return answer
