"""A provider that needs no account: made-up answers in RouterHub's shapes, from inside the process.

It is a transport, so that everything before it works as it does with a real provider.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx

from meter.core.clock import Clock

MODELS = ("anthropic/claude-sonnet-4", "google/gemini-2.5-pro", "openai/gpt-4.1")
WORDS = [
    "This",
    "answer",
    "is",
    "made",
    "up",
    "by",
    "meter's",
    "sample",
    "provider.",
    "It",
    "costs",
    "nothing",
    "and",
    "knows",
    "nothing,",
    "but",
    "it",
    "is",
    "counted",
    "like",
    "any",
    "other.",
]
PACE_SECONDS = 0.02
BYTES_PER_TOKEN = 4
HEADERS = [(b"x-meter-sample", b"true")]
EMBEDDING = [0.25, -0.5, 0.125]


class _Stream(httpx.AsyncByteStream):
    def __init__(self, chunks: Iterator[bytes], pace_seconds: float) -> None:
        self._chunks = chunks
        self._pace_seconds = pace_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
            await asyncio.sleep(self._pace_seconds)


class SampleTransport(httpx.AsyncBaseTransport):
    """Answers requests as a provider would."""

    def __init__(self, clock: Clock, pace_seconds: float = PACE_SECONDS) -> None:
        self._clock = clock
        self._pace_seconds = pace_seconds
        self._answers = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self._answers += 1
        path = request.url.path
        if request.method == "GET":
            return _json(200, _models(path))
        body = json.loads(await request.aread())
        if path.endswith("/embeddings"):
            return _json(200, self._embeddings(body))
        if body.get("stream"):
            head = [*HEADERS, (b"content-type", b"text/event-stream; charset=utf-8")]
            return httpx.Response(200, headers=head, stream=_Stream(self._events(body), self._pace_seconds))
        return _json(200, self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        words, finish_reason = _words(body)
        message = {"role": "assistant", "content": " ".join(words)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish_reason}
        if "prompt" in body:
            choice = {"index": 0, "text": message["content"], "finish_reason": finish_reason}
        return self._base(body, "chat.completion") | {"choices": [choice], "usage": _usage(body, len(words))}

    def _events(self, body: dict[str, Any]) -> Iterator[bytes]:
        words, finish_reason = _words(body)
        base = self._base(body, "chat.completion.chunk")
        asked = (body.get("stream_options") or {}).get("include_usage", False)
        silent = {"usage": None} if asked else {}
        for at, word in enumerate(words):
            delta = {"content": word if at == 0 else f" {word}"}
            yield _event(
                base | {"choices": [_choice({"role": "assistant"} | delta if at == 0 else delta)]} | silent
            )
        yield _event(base | {"choices": [_choice({}, finish_reason)]} | silent)
        if asked:
            yield _event(base | {"choices": [], "usage": _usage(body, len(words))})
        yield b"data: [DONE]\n\n"

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = _prompt_tokens(body)
        data = [{"object": "embedding", "index": 0, "embedding": EMBEDDING}]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}

    def _base(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        created: datetime = self._clock.now()
        return {
            "id": f"chatcmpl-sample-{self._answers}",
            "object": kind,
            "created": int(created.timestamp()),
            "model": body["model"],
            "system_fingerprint": None,
            "service_tier": "default",
        }


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _words(body: dict[str, Any]) -> tuple[list[str], str]:
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(WORDS)
    return WORDS[:limit], "stop" if limit >= len(WORDS) else "length"


def _prompt_tokens(body: dict[str, Any]) -> int:
    text = json.dumps(body.get("messages") or body.get("input") or body.get("prompt"))
    return len(text) // BYTES_PER_TOKEN + 1


def _usage(body: dict[str, Any], completion_tokens: int) -> dict[str, Any]:
    prompt_tokens = _prompt_tokens(body)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": prompt_tokens // 2},
        "completion_tokens_details": {"reasoning_tokens": completion_tokens // 4},
    }


def _models(path: str) -> dict[str, Any]:
    data = [{"id": model, "object": "model", "created": 0, "owned_by": "meter"} for model in MODELS]
    name = path.partition("/models/")[2]
    return {"object": "list", "data": data} if not name else data[0] | {"id": name}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _json(status: int, document: dict[str, Any]) -> httpx.Response:
    body = json.dumps(document).encode()
    head = [*HEADERS, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return httpx.Response(status, headers=head, stream=httpx.ByteStream(body))
