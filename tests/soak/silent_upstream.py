"""An upstream in a process of its own: streams that say nothing but that they live, and answers at once.

python -m tests.soak.silent_upstream PING_SECONDS prints its port, and serves until it is killed.
"""

import asyncio
import sys
from typing import cast

import uvloop

from tests.fake_upstream import chunk, event, response

IDLE = b'"idle"'
# As thousands may wait for one at the same time.
MODELS_BYTES = 1 << 16

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
FIRST = HEAD + chunk(event({"model": "served", "choices": [{"index": 0, "delta": {"content": "Hm"}}]}))
PING = chunk(b": ping\n\n")
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
ANSWER = response(
    event({"model": "served", "choices": [], "usage": USAGE}).removeprefix(b"data: "),
)
MODELS = response(b'{"data": [' + b" " * MODELS_BYTES + b"]}")


class Silence(asyncio.Protocol):
    """One connection; it takes no notice of anything but whether a stream is asked for."""

    def __init__(self, ping_seconds: float) -> None:
        self._ping_seconds = ping_seconds
        self._pings: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        # uvloop's are not asyncio's, whatever they say.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is there as a whole; nobody sends two at once."""
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        asked, self._read = self._read, b""
        assert self._transport is not None
        if IDLE in asked:
            self._say(FIRST)
        else:
            self._transport.write(MODELS if asked.startswith(b"GET") else ANSWER)
            if b"connection: close" in head.lower():
                self._transport.close()

    def connection_lost(self, _fault: Exception | None) -> None:
        """Say no more."""
        if self._pings is not None:
            self._pings.cancel()

    def _say(self, data: bytes) -> None:
        """Say something, and after a while that it lives."""
        assert self._transport is not None
        self._transport.write(data)
        loop = asyncio.get_running_loop()
        self._pings = loop.call_later(self._ping_seconds, self._say, PING)


def _length(head: bytes) -> int:
    found = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].partition(b":")[2]) if found else 0


async def _serve(ping_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Silence(ping_seconds), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1])))
