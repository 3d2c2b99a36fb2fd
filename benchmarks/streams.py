"""Many paced streams at once, read by one loop."""

import asyncio
from typing import NamedTuple, cast

import uvloop

END = b"0\r\n\r\n"


class Read(NamedTuple):
    """What came of the streams."""

    events: int
    failed: int
    """How many streams did not come to their end."""


class _Reader(asyncio.Protocol):
    def __init__(self, request: bytes, ended: "asyncio.Future[bool]") -> None:
        self._request = request
        self._ended = ended
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # A paced event comes as one piece.
        self.events += data.count(b"data: {")
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
    readers, endings = [], []
    for number in range(count):
        ended: asyncio.Future[bool] = loop.create_future()
        reader = _Reader(request, ended)
        await loop.create_connection(lambda one=reader: one, "127.0.0.1", port)  # type: ignore[misc]
        readers.append(reader)
        endings.append(ended)
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    whole = await asyncio.gather(*endings)
    return Read(sum(reader.events for reader in readers), whole.count(False))
