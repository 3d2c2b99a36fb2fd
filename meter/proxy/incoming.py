"""One response on its way in: what has come of it, who waits for more, and what went wrong.

It outlives its part of a connection, which goes on to the next request as soon as the last byte has come,
however long the body then waits here to be read.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import httpx

# What a reader is given at once, so that whoever queues chunks can bound what it holds.
CHUNK_BYTES_MAX = 64 * 1024
# Beyond this the connection is not read any more, until half of it has been taken.
BUFFERED_BYTES_MAX = 128 * 1024

Timeouts = Mapping[str, float | None]


class Source(Protocol):
    """What a response comes from; it hears nothing more of a response that has ended there."""

    @property
    def writing_paused(self) -> bool:
        """Whether the other side takes in less than is sent to it."""

    def expect(self, response: "Incoming", seconds: float | None) -> None:
        """End a response with a time-out, unless something comes; `None` is any time."""

    def read_on(self, response: "Incoming") -> None:
        """Read on, where there was no room for more."""

    def abandon(self, response: "Incoming") -> None:
        """Read no more of a response."""


class Incoming(httpx.AsyncByteStream):
    """A response, as far as it has come; its own body."""

    def __init__(
        self, source: Source, timeouts: Timeouts, *, without_body: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        """Whether the final status and all headers are here."""
        self.complete = False
        """Whether the last byte of the body has come."""
        self.over = False
        """Whether all of the body has been read."""
        self.received = 0
        """How many bytes of the body have come."""
        self.until_close = False
        """Whether the end of the connection is the end of the body."""
        self.without_body = without_body
        self._source = source
        self.timeouts = timeouts
        """How long to wait for what; may be changed between two waits."""
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._fault: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for more of it; whoever does not has all the time in the world."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def whole(self) -> bool:
        """Whether all of the body is here, and can be read at once."""
        return self.complete and self._buffered <= CHUNK_BYTES_MAX

    def add(self, piece: bytes) -> bool:
        """Take in a piece of the body; returns whether more waits to be read than should."""
        self._pieces.append(piece)
        self._buffered += len(piece)
        self.received += len(piece)
        # The parser has said that a body is complete before its last piece comes here.
        self.over = False
        return self._buffered > BUFFERED_BYTES_MAX

    def finish(self) -> None:
        """Take note that the last byte of the body has come."""
        self.complete = True
        self.over = not self._pieces

    def fail(self, fault: httpx.TransportError) -> None:
        """End it with a fault, which is raised behind what has come."""
        self._fault = fault
        self.wake()

    def wake(self) -> None:
        """Have whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def room_to_write(self) -> bool:
        """Wait until more of the request can be sent; false where the answer is here already."""
        while self._source.writing_paused and not self.begun:
            await self._wait("write")
        return not self.begun

    async def head(self) -> None:
        """Wait for the final status and headers."""
        while not self.begun:
            await self._wait("write" if self._source.writing_paused else "read")

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes."""
        return self

    async def __anext__(self) -> bytes:
        """Return what `read` does."""
        chunk = await self.read()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes | None:
        """Return what has come of the body, at most `CHUNK_BYTES_MAX` of it; `None` is its end."""
        while not self._pieces:
            if self.complete:
                return None
            await self._wait("read")
        return self._take()

    async def aclose(self) -> None:
        """Give up the rest, if there is any."""
        self._source.abandon(self)

    def _wait(self, what: str) -> asyncio.Future[None]:
        """Return what is done when there is something to look at; raises the fault of what has failed."""
        if self._fault is not None:
            raise self._fault
        self._waiter = self._loop.create_future()
        self._source.expect(self, self.timeouts.get(what))
        return self._waiter

    def _take(self) -> bytes:
        pieces = self._pieces
        if self._buffered <= CHUNK_BYTES_MAX:
            # Many events that came by one read go on as one piece.
            chunk = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
        else:
            chunk = self._take_some()
        self.over = self.complete and not pieces
        before, self._buffered = self._buffered, self._buffered - len(chunk)
        if before > BUFFERED_BYTES_MAX // 2 >= self._buffered:
            self._source.read_on(self)
        return chunk

    def _take_some(self) -> bytes:
        piece = self._pieces.popleft()
        if len(piece) > CHUNK_BYTES_MAX:
            self._pieces.appendleft(piece[CHUNK_BYTES_MAX:])
        return piece[:CHUNK_BYTES_MAX]
