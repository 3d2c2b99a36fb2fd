"""The upstream of the measurements: bytes that were written beforehand, so that it is not what is measured.

python -m benchmarks.upstream PORT

A request whose body asks for a stream gets `EVENTS` events and its usage at once, or, with the header
`x-pace-ms`, one of `PACED_EVENTS` every so often. `GET /count` says how many requests came otherwise.
"""

import asyncio
import re
import sys
from collections.abc import Iterable
from typing import cast

import uvloop

EVENTS = 200
PACED_EVENTS = 50

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PACE = re.compile(rb"\r\nx-pace-ms: *(\d+)", re.IGNORECASE)

EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"bench",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":200,"total_tokens":214,'
    b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
)
BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1790000000,"model":"bench","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"A meter stands between a caller and a model, '
    b'passes every byte on as it is, and writes down what was used."},"logprobs":null,"finish_reason":"stop"}'
    b'],"usage":{"prompt_tokens":14,"completion_tokens":32,"total_tokens":46,"prompt_tokens_details":'
    b'{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
    b'"audio_tokens":0}},"system_fingerprint":null,"service_tier":"default"}'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\ncache-control: no-cache\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunks(events: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


_JSON = _whole(BODY)
_PACED = _chunks([EVENT])
_END = _chunks([USAGE, b"data: [DONE]\n\n"]) + b"0\r\n\r\n"
_BURST = _STREAM_HEAD + _chunks([EVENT] * EVENTS) + _END


class _Upstream(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    requests = 0

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if mark and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /count "):
            self._transport.write(_whole(b"%d" % _Upstream.requests))
            return
        _Upstream.requests += 1
        pace = _PACE.search(head)
        if b'"stream":true' not in body:
            self._transport.write(_JSON)
        elif pace is None:
            self._transport.write(_BURST)
        else:
            self._transport.write(_STREAM_HEAD)
            self._go_on(PACED_EVENTS, int(pace[1]) / 1000)

    def _go_on(self, left: int, pause_seconds: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_PACED if left else _END)
        if left:
            asyncio.get_running_loop().call_later(pause_seconds, self._go_on, left - 1, pause_seconds)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
