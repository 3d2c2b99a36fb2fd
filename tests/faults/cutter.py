"""A TCP proxy in front of PostgreSQL: it breaks connections off within a COMMIT, or lets nothing through."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"COMMIT"
READ_BYTES = 1 << 16
WAIT_SECONDS_MAX = 20.0


class Cutter:
    """Forwards connections; of so large a share of the commits it loses the question or the answer."""

    def __init__(self, url: str, chance: random.Random) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port or 5432)
        self._chance = chance
        self.share = 0.0
        self.cuts = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(WAIT_SECONDS_MAX)
        port = self._server.sockets[0].getsockname()[1]
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        self.url = urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}"))

    def part(self) -> None:
        """Let nothing through any more, as a network does that falls apart: nobody is told."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """Let everything through that waits, and what follows."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        """Stop forwarding."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS_MAX)
        self._loop.close()

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        behind: asyncio.StreamWriter | None = None
        try:
            await self._whole.wait()
            answers, behind = await asyncio.open_connection(*self._target)
            back = asyncio.create_task(self._pass(answers, writer))
            try:
                await self._forward(reader, behind, writer)
            finally:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in (writer, behind):
                if each is not None:
                    each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(READ_BYTES):
            await self._whole.wait()
            at = data.find(COMMIT)
            if at < 0 or self._chance.random() >= self.share:
                behind.write(data)
                await behind.drain()
                continue
            self.cuts += 1
            kind = self._chance.choice(("before", "within", "behind"))
            if kind == "behind":
                # PostgreSQL commits, and its answer is lost.
                writer.transport.abort()
                behind.write(data)
                await behind.drain()
                await asyncio.sleep(0.05)
            elif kind == "within":
                behind.write(data[: at + 3])
                await behind.drain()
            return

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
            writer.close()


@contextlib.contextmanager
def running(url: str, chance: random.Random) -> Iterator[Cutter]:
    """Run a proxy in front of a database."""
    cutter = Cutter(url, chance)
    try:
        yield cutter
    finally:
        cutter.close()
