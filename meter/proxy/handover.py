"""What a pump hands over to the client's side: the head of a response, and its chunks, a few at a time."""

import asyncio
from collections import deque
from typing import NamedTuple

from meter.core.errors import MeterError
from meter.proxy.headers import Pairs

# Chunks are at most 64 KiB, so that a stream holds at most half a megabyte between its two sides.
CHUNKS_MAX = 8


class Head(NamedTuple):
    """What a response begins with, for the client."""

    status: int
    headers: Pairs


class Handover:
    """A small bounded queue with one side that gives and one that takes."""

    def __init__(self) -> None:
        self._head: Head | MeterError | None = None
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._taker: asyncio.Future[None] | None = None
        self._giver: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._chunks

    def begin(self, head: Head | MeterError) -> None:
        """Hand over the beginning, or what is to be said in its place."""
        self._head = head
        _wake(self._taker)

    async def give(self, chunk: bytes) -> None:
        """Hand over a chunk as soon as there is room for it; after the end it goes nowhere."""
        while len(self._chunks) >= CHUNKS_MAX and not self._ended:
            self._giver = asyncio.get_running_loop().create_future()
            await self._giver
        if not self._ended:
            self._chunks.append(chunk)
            _wake(self._taker)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        _wake(self._taker)

    def give_up(self) -> None:
        """Forget what waits to be taken, and end."""
        self._chunks.clear()
        self.end()
        _wake(self._giver)

    async def head(self) -> Head:
        """Wait for the beginning; raises the `MeterError` that came in its place."""
        while self._head is None:
            await self._wait()
        if isinstance(self._head, MeterError):
            raise self._head
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
