"""The connections of one listener: how many there may be, and how long each may take for what.

Nobody has a timer. One watch looks at all connections every second, by a clock that it alone moves, so that a
request costs none.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

from meter.core.errors import MeterError, Overloaded
from meter.proxy.answers import Send, respond

LOOK_SECONDS = 1.0
LOOKED_AT_ONCE = 200
# A process that was stopped for a while must not take that for its clients' silence.
STEP_SECONDS_MAX = 2 * LOOK_SECONDS
# So many more connections than there may be are taken in to be told so; what comes beyond is closed at once.
TOLD_MIN = 16
TOLD_PART = 10

App = Callable[[MutableMapping[str, Any], Any, Send], Awaitable[None]]
# A local answer, such as a health check: status and JSON body.
Local = Callable[[], tuple[int, bytes]]


class ConnectionLimits(NamedTuple):
    """What a listener's connections may do."""

    connections_max: int
    header_bytes_max: int
    headers_seconds_max: float
    body_idle_seconds_max: float
    body_seconds_max: float
    idle_seconds_max: float
    """Between two requests."""
    stall_seconds_max: float
    """How long a client may take in nothing of what waits for it."""


class Watched(Protocol):
    """A connection, as its watch sees it."""

    def look(self, now: float) -> None:
        """End what has taken too long."""


class Connections:
    """All connections of a listener in this process."""

    def __init__(
        self, limits: ConnectionLimits, *, overflow: App | None = None, cut: Callable[[str], None]
    ) -> None:
        """Take the limits, what answers those that are too many, and whom to tell why one was cut off."""
        self.limits = limits
        self.overflow = overflow or Overflow({}, lambda _: None)
        self.cut = cut
        self.now = 0.0
        """The watch's clock, in seconds, which stands still between two looks."""
        self.stalled = 0
        """How many wait for their client to take something in."""
        self.pipelined = 0
        """How many requests wait behind others on their connections."""
        self._open: set[Watched] = set()
        told = max(TOLD_MIN, limits.connections_max // TOLD_PART)
        self._taken_max = limits.connections_max + told

    def __len__(self) -> int:
        return len(self._open)

    @property
    def crowded(self) -> bool:
        """Whether there are more than there may be."""
        return len(self._open) > self.limits.connections_max

    def add(self, connection: Watched) -> bool:
        """Take a connection in; false where there is no room even to refuse it."""
        if len(self._open) >= self._taken_max:
            self.cut("crowded")
            return False
        self._open.add(connection)
        return True

    def discard(self, connection: Watched) -> None:
        """Forget a connection that is gone."""
        self._open.discard(connection)

    async def keep_watch(self) -> None:
        """Look at all connections, again and again until cancelled."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before, looked_at = looked_at, loop.time()
            self.now += min(looked_at - before, STEP_SECONDS_MAX)
            everyone = iter(tuple(self._open))
            while some := tuple(islice(everyone, LOOKED_AT_ONCE)):
                for connection in some:
                    if connection in self._open:
                        connection.look(self.now)
                # Thousands of connections are looked at in milliseconds, which no request should wait for.
                await asyncio.sleep(0)


class Overflow:
    """Answers on connections that are too many: to health checks as ever, to everything else by 503."""

    def __init__(self, local: Mapping[str, Local], refused: Callable[[MeterError], None]) -> None:
        self._local = local
        self._refused = refused

    async def __call__(self, scope: MutableMapping[str, Any], _receive: object, send: Send) -> None:
        """Answer one request, the last of its connection."""
        local = self._local.get(scope["raw_path"].decode("latin-1"))
        close = ("connection", "close")
        if local is not None and scope["method"] == "GET":
            await respond(send, *local(), headers=[close])
            return
        refusal = Overloaded("This server has as many connections as it may have; try again soon.")
        self._refused(refusal)
        await respond(send, refusal.status, refusal.body(), [*refusal.headers, close])
