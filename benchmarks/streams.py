"""Many paced streams at once, read by one loop, which sees how long each event was under way."""

import asyncio
import statistics
import time
from typing import NamedTuple, cast

import uvloop

from benchmarks.upstream import STAMP, stamp

END = b"0\r\n\r\n"
# So many connections are opened before the loop reads again.
OPENED_AT_ONCE = 10


class Read(NamedTuple):
    """What came of the streams."""

    events: int
    failed: int
    """How many streams did not come to their end."""
    seconds: float
    """From when all streams were open to the first that ended; events of that time are the next."""
    events_meanwhile: int
    p50_us: float
    """Of the time from the upstream's writing an event to its being read here."""
    p99_us: float


class _Reader(asyncio.Protocol):
    def __init__(self, request: bytes, delays: list[int], ended: "asyncio.Future[bool]") -> None:
        self._request = request
        self._delays = delays
        self._ended = ended
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = stamp()
        data = self._rest + data
        for sent in STAMP.findall(data):
            self._delays.append(now - int(sent))
        # An event that is not yet here as a whole is looked at again.
        self._rest = data[data.rfind(b"\n\n") + 1 :]
        if data.endswith(END):
            self._end(whole=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._end(whole=False)

    def _end(self, *, whole: bool) -> None:
        if not self._ended.done():
            self._ended.set_result(whole)
            self._transport.close()


def read(port: int, request: bytes, count: int) -> Read:
    """Open so many streams, a few at a time, and read them to their ends."""
    return uvloop.run(_read(port, request, count))


async def _read(port: int, request: bytes, count: int) -> Read:
    loop = asyncio.get_running_loop()
    delays: list[int] = []
    endings: list[asyncio.Future[bool]] = []
    for number in range(count):
        ended: asyncio.Future[bool] = loop.create_future()
        reader = _Reader(request, delays, ended)
        await loop.create_connection(lambda one=reader: one, "127.0.0.1", port)  # type: ignore[misc]
        endings.append(ended)
        if number % OPENED_AT_ONCE == 0:
            await asyncio.sleep(0.002)
    began, before = time.monotonic(), len(delays)
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    seconds, meanwhile = time.monotonic() - began, len(delays) - before
    whole = await asyncio.gather(*endings)
    percents = statistics.quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
    return Read(
        events=len(delays),
        failed=whole.count(False),
        seconds=seconds,
        events_meanwhile=meanwhile,
        p50_us=percents[49],
        p99_us=percents[98],
    )
