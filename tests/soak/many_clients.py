"""Clients of idle streams, in a process of their own, since each is an open file.

python -m tests.soak.many_clients PORT COUNT reads a request from standard input, sends it on as many
connections, and prints `open` when each has an answer. When standard input ends, it prints how many were
ended by the other side before, and hangs up.
"""

import asyncio
import sys
from typing import cast

import uvloop

AT_ONCE = 200
OPEN_SECONDS_MAX = 600.0


class Client(asyncio.Protocol):
    """One stream, of which nothing is kept."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.began = asyncio.get_running_loop().create_future()
        self.ended = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        # uvloop's are not asyncio's, whatever they say.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note that there is an answer."""
        if not self.began.done():
            self.began.set_result(data.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, _fault: Exception | None) -> None:
        """Note that there will be no more."""
        self.ended = True
        if not self.began.done():
            self.began.set_result(False)


async def _run(port: int, count: int, request: bytes) -> None:
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(AT_ONCE)
    clients: list[Client] = []

    async def one() -> bool:
        async with room:
            _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
            clients.append(client)
            return bool(await client.began)

    async with asyncio.timeout(OPEN_SECONDS_MAX):
        answered = await asyncio.gather(*(one() for _ in range(count)))
    _say(f"open {sum(answered)}")
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    _say(f"ended {sum(client.ended for client in clients)}")
    for client in clients:
        if client.transport is not None:
            client.transport.abort()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _request() -> bytes:
    """Read a request, which is as long as the line before it says."""
    return sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2]), _request()))
