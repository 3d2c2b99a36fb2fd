"""The connections of a transport: those in use, those kept, and who waits for one.

A slot is held from `take` until the connection says that its exchange has ended, and is then given to whoever
has waited longest. Nothing awaits while it holds a slot without giving it back when it is cancelled.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import httpx

from meter.proxy.connection import Connection, Origin

Dial = Callable[[Connection, float | None], Awaitable[None]]


class Pool:
    """Connections by origin."""

    def __init__(
        self, dial: Dial, *, connections_max: int | None, kept_max: int, overhead_bytes_max: int
    ) -> None:
        self._dial = dial
        self._connections_max = connections_max
        self._kept_max = kept_max
        self._overhead_bytes_max = overhead_bytes_max
        self._kept: dict[Origin, dict[Connection, None]] = {}
        self._kept_count = 0
        self._open: set[Connection] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slots_taken = 0
        self._closed = False

    @property
    def slots_taken(self) -> int:
        """How many connections are in use or being opened."""
        return self._slots_taken

    @property
    def kept(self) -> int:
        """How many connections wait for another request."""
        return self._kept_count

    async def take(self, origin: Origin, *, pool: float | None, connect: float | None) -> Connection:
        """Return a connection that is ready for a request; time-outs are in seconds."""
        if not self._take_slot():
            await self._wait_for_slot(pool)
        try:
            return self._take_kept(origin) or await self._opened(origin, connect)
        except BaseException:
            self._give_slot_back()
            raise

    def take_kept(self, origin: Origin) -> Connection | None:
        """Return a connection that is there and free, or `None` where one has to be waited for."""
        if not self._kept.get(origin) or not self._take_slot():
            return None
        connection = self._take_kept(origin)
        if connection is None:
            self._give_slot_back()
        return connection

    async def aclose(self) -> None:
        """Close every connection, and refuse whoever waits."""
        self._closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(httpx.PoolTimeout("the transport was closed"))
        open_ones = list(self._open)
        for connection in open_ones:
            connection.abort()
        await asyncio.gather(*(connection.gone for connection in open_ones))

    def _take_slot(self) -> bool:
        if self._closed:
            raise RuntimeError("the transport is closed")
        if self._connections_max is not None and self._slots_taken >= self._connections_max:
            return False
        self._slots_taken += 1
        return True

    async def _wait_for_slot(self, seconds: float | None) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except BaseException as fault:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                # It was given a slot in the very moment in which it stopped to wait.
                self._give_slot_back()
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
            if isinstance(fault, TimeoutError):
                raise httpx.PoolTimeout("no connection became free in time") from fault
            raise

    def _give_slot_back(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return
        self._slots_taken -= 1

    def _take_kept(self, origin: Origin) -> Connection | None:
        kept = self._kept.get(origin)
        while kept:
            connection, _ = kept.popitem()
            self._kept_count -= 1
            if connection.quiet():
                return connection
            connection.abort()
        return None

    async def _opened(self, origin: Origin, seconds: float | None) -> Connection:
        self._make_room()
        loop = asyncio.get_running_loop()
        connection = Connection(
            origin=origin,
            ended=self._ended,
            lost=self._lost,
            loop=loop,
            overhead_bytes_max=self._overhead_bytes_max,
        )
        try:
            await self._dial(connection, seconds)
        except BaseException:
            connection.abort()
            raise
        if connection.gone.done():
            raise httpx.ConnectError("the connection was closed as soon as it was open")
        self._open.add(connection)
        return connection

    def _make_room(self) -> None:
        """Close the connection that has been kept longest, where one more would be one too many."""
        if self._connections_max is None or self._slots_taken + self._kept_count <= self._connections_max:
            return
        for kept in self._kept.values():
            if kept:
                connection = next(iter(kept))
                self._forget(connection)
                connection.abort()
                return

    def _ended(self, connection: Connection, clean: bool) -> None:  # noqa: FBT001 (a callback)
        if clean and not self._closed and self._kept_count < self._kept_max:
            self._kept.setdefault(connection.origin, {})[connection] = None
            self._kept_count += 1
        elif clean:
            connection.abort()
        self._give_slot_back()

    def _forget(self, connection: Connection) -> None:
        kept = self._kept.get(connection.origin, {})
        if connection in kept:
            del kept[connection]
            self._kept_count -= 1

    def _lost(self, connection: Connection) -> None:
        self._forget(connection)
        self._open.discard(connection)
