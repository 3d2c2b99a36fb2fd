"""A provider that does exactly what a test says, on a real loopback socket.

An answer is a list of steps: bytes to send as they are, a gate to wait at until the test opens it, a cut.
Everything that was received, and everything that was sent, is kept as the truth to compare with.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

WAIT_SECONDS_MAX = 20.0


class Gate:
    """A place in an answer where the upstream waits for the test."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._lock = threading.Lock()
        self._opened = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Let the upstream go on."""
        with self._lock:
            self._opened = True
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Wait, on the upstream's side."""
        event = asyncio.Event()
        with self._lock:
            if self._opened:
                event.set()
            else:
                self._waiting.append((asyncio.get_running_loop(), event))
        self.reached.set()
        await event.wait()


@dataclass(frozen=True)
class Cut:
    """Where the upstream breaks off; with a reset, or by closing."""

    reset: bool = False


Step = bytes | Gate | Cut


@dataclass
class Received:
    """One request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    sent: bytearray = field(default_factory=bytearray)
    """What was answered."""
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when the caller closed its connection within the answer."""
    behind: bytearray = field(default_factory=bytearray)
    """What came behind the request before it was answered; nobody pipelines here."""

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


# Steps, or what makes them of the request.
Answer = Sequence[Step] | Callable[[Received], Sequence[Step]]


class FakeUpstream:
    """The server; answers are taken from a queue, the last one stays."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.received: list[Received] = []
        self.accepted = 0
        """How many connections have been opened to it."""
        self._tls = tls
        self._answers: deque[Answer] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connections: set[asyncio.Task[None]] = set()
        server = asyncio.run_coroutine_threadsafe(self._start(port), self._loop).result(WAIT_SECONDS_MAX)
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, *answers: Answer) -> None:
        """Answer the next requests so; the last answer is given to all that follow."""
        self._answers = deque(answers)

    def reset(self) -> None:
        """Forget what was received and how to answer."""
        self.received.clear()
        self.accepted = 0
        self._answers.clear()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """End every connection, and have nobody listen, until the block ends.

        The port must be of the caller's choice: one of the kernel's would be somebody else's by then.
        """
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS_MAX)
        try:
            yield
        finally:
            starting = asyncio.run_coroutine_threadsafe(self._start(self.port), self._loop)
            self._server = starting.result(WAIT_SECONDS_MAX)

    def close(self) -> None:
        """Stop serving."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS_MAX)
        self._loop.close()

    async def _start(self, port: int) -> asyncio.Server:
        # The kernel tries again after seconds what does not fit the queue, as no upstream would.
        return await asyncio.start_server(
            self._serve, "127.0.0.1", port, limit=2**26, backlog=2048, ssl=self._tls
        )

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        try:
            while (request := await _read_request(reader)) is not None:
                self.received.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        steps = answer(request) if callable(answer) else answer
        watch = asyncio.create_task(_watch(reader, request))
        try:
            for step in steps:
                if isinstance(step, Gate):
                    await step.wait()
                elif isinstance(step, Cut):
                    _cut(writer, step)
                    return False
                else:
                    request.sent += step
                    writer.write(step)
                    await writer.drain()
        except ConnectionError:
            request.hung_up.set()
            return False
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        closes = (request.header("connection") or "").lower() == "close"
        return not closes and b"connection: close" not in bytes(request.sent).lower()


async def _watch(reader: asyncio.StreamReader, request: Received) -> None:
    """Notice a caller that closes while it is being answered, or that sends more than a request."""
    if behind := await reader.read(1):
        request.behind += behind
    else:
        request.hung_up.set()


def _cut(writer: asyncio.StreamWriter, cut: Cut) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    if cut.reset:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Received(method, target, headers, await reader.readexactly(length))


def response(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    headers: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),),
    length: bool = True,
) -> bytes:
    """Write a whole response, with its length unless told otherwise."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunk(data: bytes) -> bytes:
    """Write one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream(
    *pieces: bytes | Gate | Cut,
    headers: Sequence[tuple[str, str]] = (("Content-Type", "text/event-stream; charset=utf-8"),),
    status: str = "200 OK",
) -> list[Step]:
    """Write a chunked response, a chunk a piece, with gates and cuts between them."""
    head = response(status=status, headers=[*headers, ("Transfer-Encoding", "chunked")], length=False)
    steps: list[Step] = [head]
    steps += [chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    return steps if isinstance(steps[-1], Cut) else [*steps, b"0\r\n\r\n"]


def event(document: object) -> bytes:
    """Write one server-sent event."""
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@contextlib.contextmanager
def running(tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[FakeUpstream]:
    """Run a fake upstream."""
    upstream = FakeUpstream(tls, port)
    try:
        yield upstream
    finally:
        upstream.close()
