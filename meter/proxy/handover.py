"""An answer on its way to ASGI: one side gives its head and a few chunks at a time, the other takes them."""

import asyncio
from collections import deque

from meter.core.errors import MeterError
from meter.proxy.outlet import Head

# Chunks are at most 64 KiB, so that a stream holds at most half a megabyte between its two sides.
CHUNKS_MAX = 8


class Handover:
    """An outlet with a small queue, and one who takes from it."""

    def __init__(self) -> None:
        self._head: Head | MeterError | None = None
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._taker: asyncio.Future[None] | None = None
        self._giver: asyncio.Future[None] | None = None
        self.whole = False
        """Whether the answer came to its own end."""

    # The side that gives.

    @property
    def full(self) -> bool:
        """Whether there is no room for another chunk."""
        return len(self._chunks) >= CHUNKS_MAX

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._chunks

    def begin(self, head: Head) -> None:
        """Hand over the head."""
        self._head = head
        _wake(self._taker)

    def answer(self, head: Head, body: bytes) -> None:
        """Hand over a whole answer."""
        self._head = head
        self.end(body, whole=True)

    def refuse(self, refusal: MeterError) -> None:
        """Hand over what is to be said in the place of an answer."""
        self._head = refusal
        _wake(self._taker)

    def give(self, chunk: bytes) -> None:
        """Hand over a chunk; after the end it goes nowhere."""
        if not self._ended:
            self._chunks.append(chunk)
            _wake(self._taker)

    async def room(self) -> None:
        """Wait until a chunk was taken, or nobody takes any."""
        while self.full and not self._ended:
            self._giver = asyncio.get_running_loop().create_future()
            await self._giver

    def end(self, last: bytes = b"", *, whole: bool) -> None:
        """Hand over the last chunk, and say that nothing more comes."""
        if self._ended:
            return
        if last:
            self._chunks.append(last)
        self.whole = whole
        self._ended = True
        _wake(self._taker)

    def give_up(self) -> None:
        """Forget what waits to be taken, and end."""
        self._chunks.clear()
        self.end(whole=False)
        _wake(self._giver)

    # The side that takes.

    async def head(self) -> Head | MeterError:
        """Wait for the beginning, or for what is to be said in its place."""
        while self._head is None:
            await self._wait()
        return self._head

    async def take(self) -> bytes | None:
        """Return the next chunk, or `None` at the end."""
        while not self._chunks:
            if self._ended:
                return None
            await self._wait()
        chunk = self._chunks.popleft()
        _wake(self._giver)
        return chunk

    async def _wait(self) -> None:
        self._taker = asyncio.get_running_loop().create_future()
        await self._taker


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
