"""Head and body of an answer go by one write, and nothing is kept that something else would overtake."""

import asyncio
import socket
from collections.abc import Callable

from meter.proxy.joined import HELD_BYTES_MAX, JoinedWrites


class Recording(asyncio.Transport):
    """A transport that only takes note."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take note of a write."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Take note of the end."""
        self.closed = True

    def is_closing(self) -> bool:
        """Say whether it has come to its end."""
        return self.closed


def written(work: Callable[[JoinedWrites], None]) -> list[bytes]:
    """Return what is written in the turn after some work."""

    async def run() -> list[bytes]:
        transport = Recording()
        work(JoinedWrites(transport, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return transport.written

    return asyncio.run(run())


def test_writes_of_one_turn_are_one() -> None:
    """What comes in one turn is written at its end."""

    def work(joined: JoinedWrites) -> None:
        joined.write(b"head ")
        joined.write(b"body")

    assert written(work) == [b"head body"]


def test_much_does_not_wait() -> None:
    """So much at once is written at once, in order, and what follows goes by itself."""
    much = b"x" * HELD_BYTES_MAX

    def work(joined: JoinedWrites) -> None:
        joined.write(b"head ")
        joined.write(much)
        joined.write(b"rest")

    assert written(work) == [b"head " + much, b"rest"]


def test_closing_writes_first() -> None:
    """A connection closes behind what was written to it, and takes nothing more."""

    def work(joined: JoinedWrites) -> None:
        joined.write(b"head ")
        joined.write(b"body")
        joined.close()
        joined.write(b"too late")

    assert written(work) == [b"head body"]


def test_a_client_reads_both_at_once() -> None:
    """Over a real connection one read brings head and body."""

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        far.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        joined = JoinedWrites(transport, loop)
        joined.write(b"head ")
        joined.write(b"body")
        try:
            return await loop.sock_recv(far, 100)
        finally:
            transport.close()
            far.close()
            await asyncio.sleep(0)

    assert asyncio.run(run()) == b"head body"
