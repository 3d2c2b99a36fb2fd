"""The transports to upstreams, ours and the stock one, held against a server that sends what a row says.

Rows are for both, unless they say that they are for ours: the stock one then reads what is not to be relied
on, or keeps what it should not.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from meter.proxy.connection import JOINED_BYTES_MAX, OVERHEAD_BYTES_MAX, Connection, Origin
from meter.proxy.incoming import BUFFERED_BYTES_MAX, CHUNK_BYTES_MAX
from tests import server
from tests.fake_upstream import Cut, FakeUpstream, Gate, Step, chunk
from tests.transports import OURS, STOCK, Got, ask, asking, opened, ours, own_upstream, run  # noqa: F401 (a fixture)

CRLF2 = b"\r\n\r\n"


@pytest.fixture(params=[OURS, STOCK])
def name(request: pytest.FixtureRequest) -> str:
    """Take the one and the other."""
    chosen: str = request.param
    return chosen


def answered(name: str, upstream: FakeUpstream, steps: Sequence[Step]) -> tuple[Got, int]:
    """Ask twice, at first for these steps; returns what came of that, and how many connections it took."""
    upstream.answer(steps, [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain"])

    async def act() -> Got:
        async with opened(name) as transport:
            got = await ask(transport, asking(upstream.url))
            if isinstance(steps[-1], Cut):
                # Otherwise the next request could go out before the end is heard of.
                await asyncio.to_thread(server.until, lambda: not upstream.connections, "the end")
            again = await ask(transport, asking(upstream.url))
        assert (again.fault, again.body) == (None, b"again")
        return got

    got = run(act())
    assert len(upstream.received) == 2
    return got, upstream.accepted


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    """Write the head of a response."""
    return "\r\n".join([status, *lines, "", ""]).encode("latin-1")


CHUNKED = head("Transfer-Encoding: chunked")
LENGTH_2 = head("Content-Length: 2")
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

WHOLE: list[tuple[str, list[Step], bytes, bool]] = [
    ("length", [LENGTH_2 + b"hi"], b"hi", True),
    ("length, in pieces", [LENGTH_2, b"h", b"i"], b"hi", True),
    ("no body", [head("Content-Length: 0")], b"", True),
    ("chunked", [CHUNKED + chunk(b"he") + chunk(b"llo") + b"0\r\n\r\n"], b"hello", True),
    ("chunked in capitals", [head("transfer-encoding: Chunked") + chunk(b"hi") + b"0\r\n\r\n"], b"hi", True),
    ("extensions", [CHUNKED + b'2;a=1;b="c"\r\nhi\r\n0;z\r\n\r\n'], b"hi", True),
    ("trailers", [CHUNKED + chunk(b"hi") + b"0\r\nDigest: x\r\nB: c\r\n\r\n"], b"hi", True),
    ("informational", [EARLY + LENGTH_2 + b"hi"], b"hi", True),
    ("many informational", [EARLY, EARLY, EARLY + LENGTH_2, b"hi"], b"hi", True),
    ("204", [head(status="HTTP/1.1 204 No Content")], b"", True),
    ("304 with a length", [head("Content-Length: 9", status="HTTP/1.1 304 Not Modified")], b"", True),
    ("until the end", [head() + b"hello", Cut()], b"hello", False),
    ("until the end, nothing", [head(), Cut()], b"", False),
    ("close", [head("Content-Length: 2", "Connection: close") + b"hi"], b"hi", False),
    ("1.0", [head("Content-Length: 2", status="HTTP/1.0 200 OK") + b"hi", Cut()], b"hi", False),
    ("1.0, until the end", [head(status="HTTP/1.0 200 OK") + b"hi", Cut()], b"hi", False),
    ("closed behind the answer", [LENGTH_2 + b"hi", Cut()], b"hi", False),
    ("60 kB of headers", [head("Content-Length: 2", f"A: {'a' * 60_000}") + b"hi"], b"hi", True),
    ("100 kB", [head("Content-Length: 100000") + b"x" * 100_000], b"x" * 100_000, True),
]


@pytest.mark.parametrize(("steps", "body", "kept"), [row[1:] for row in WHOLE], ids=[row[0] for row in WHOLE])
def test_whole_answers(steps: list[Step], body: bytes, kept: bool, name: str, upstream: FakeUpstream) -> None:
    """An answer is read to its end, and the connection is kept if nothing speaks against it."""
    got, connections = answered(name, upstream, steps)

    assert (got.fault, got.body) == (None, body)
    assert connections == (1 if kept else 2)


def test_statuses_and_headers(name: str, upstream: FakeUpstream) -> None:
    """The final status counts; headers keep their order and duplicates, and lose the blanks around them."""
    lines = ("B: 1", "A:  two words \t", "B: 3", "Content-Length: 0")
    got, _ = answered(name, upstream, [EARLY + head(*lines, status="HTTP/1.1 429 Slow Down")])

    assert got.status == 429
    expected = [(b"b", b"1"), (b"a", b"two words"), (b"b", b"3"), (b"content-length", b"0")]
    assert [(name.lower(), value) for name, value in got.headers] == expected


LARGE = "a" * (OVERHEAD_BYTES_MAX + 1000)
# The last column says whether the row is for ours alone.
REFUSED: list[tuple[str, list[Step], bool]] = [
    ("no HTTP", [b"hello\r\n\r\n", Cut()], False),
    ("other lengths", [head("Content-Length: 2", "Content-Length: 3") + b"hi"], False),
    ("the length twice", [head("Content-Length: 2", "Content-Length: 2") + b"hi"], True),
    ("a list of lengths", [head("Content-Length: 2, 2") + b"hi"], True),
    ("a signed length", [head("Content-Length: +2") + b"hi"], False),
    ("a negative length", [head("Content-Length: -2") + b"hi"], False),
    ("an endless length", [head(f"Content-Length: {'9' * 40}") + b"hi"], False),
    ("length and chunked", [head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n"], True),
    ("chunked and length", [head("Transfer-Encoding: chunked", "Content-Length: 2") + b"0\r\n\r\n"], True),
    ("gzip by transfer", [head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"], False),
    ("another transfer", [head("Transfer-Encoding: xchunked") + b"0\r\n\r\n", Cut()], False),
    (
        "chunked twice",
        [head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n"],
        False,
    ),
    ("a blank before the colon", [head("Content-Length : 2") + b"hi"], False),
    ("a line without colon", [head("Content-Length 2") + b"hi"], False),
    ("a folded line", [head("A: b", " c", "Content-Length: 2") + b"hi"], True),
    ("a NUL", [head("A: b\0c", "Content-Length: 2") + b"hi"], False),
    ("lines without CR", [head("Content-Length: 2").replace(b"\r", b"") + b"hi"], True),
    ("101", [head("Upgrade: x", "Connection: upgrade", status="HTTP/1.1 101 Switching")], True),
    ("a status of two digits", [head("Content-Length: 2", status="HTTP/1.1 20 OK") + b"hi"], False),
    ("large headers", [head(f"A: {LARGE}", "Content-Length: 2") + b"hi"], True),
    ("endless headers", [head(f"A: {LARGE}")[:-4], LARGE.encode(), LARGE.encode(), LARGE.encode()], False),
    ("endless hints", [EARLY * (OVERHEAD_BYTES_MAX // len(EARLY) + 1), EARLY, EARLY * 5000], True),
    ("nothing", [Cut()], False),
    ("part of a head", [LENGTH_2[:20], Cut()], False),
    ("hints alone", [EARLY, Cut()], False),
]


@pytest.mark.parametrize(
    ("steps", "only_ours"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_no_answer(steps: list[Step], only_ours: bool, name: str, upstream: FakeUpstream) -> None:
    """What is no answer, or could be read as two, is refused, and its connection is closed."""
    if only_ours and name == STOCK:
        pytest.skip("the stock transport reads it")
    got, connections = answered(name, upstream, steps)

    assert (got.fault, got.status, got.body) == (httpx.RemoteProtocolError, 0, b"")
    assert connections == 2


BROKEN: list[tuple[str, list[Step], bytes, type[httpx.TransportError], bool]] = [
    ("too short", [LENGTH_2 + b"h", Cut()], b"h", httpx.RemoteProtocolError, False),
    ("no body at all", [LENGTH_2, Cut()], b"", httpx.RemoteProtocolError, False),
    (
        "no last chunk",
        [CHUNKED + chunk(b"he") + chunk(b"llo"), Cut()],
        b"hello",
        httpx.RemoteProtocolError,
        False,
    ),
    ("in a chunk", [CHUNKED + chunk(b"hello")[:-4], Cut()], b"hel", httpx.RemoteProtocolError, False),
    (
        "in the last chunk",
        [CHUNKED + chunk(b"hi") + b"0\r\n", Cut()],
        b"hi",
        httpx.RemoteProtocolError,
        False,
    ),
    ("in a size", [CHUNKED + chunk(b"hi") + b"1", Cut()], b"hi", httpx.RemoteProtocolError, False),
    ("no size", [CHUNKED + chunk(b"hi") + b"zz\r\n"], b"hi", httpx.RemoteProtocolError, False),
    (
        "an endless size",
        [CHUNKED + chunk(b"hi") + b"f" * 40 + b"\r\n"],
        b"hi",
        httpx.RemoteProtocolError,
        False,
    ),
    ("no CR", [CHUNKED + chunk(b"hi") + b"2\nhi\n0\n\n"], b"hi", httpx.RemoteProtocolError, True),
    (
        "large trailers",
        [CHUNKED + chunk(b"hi"), b"0\r\nA: " + LARGE.encode(), LARGE.encode(), CRLF2],
        b"hi",
        httpx.RemoteProtocolError,
        False,
    ),
    ("a reset, by length", [LENGTH_2, Gate(), b"h", Cut(reset=True)], b"h", httpx.ReadError, False),
    ("a reset, until the end", [head(), Gate(), b"h", Cut(reset=True)], b"h", httpx.ReadError, False),
]


@pytest.mark.parametrize(
    ("steps", "body", "fault", "only_ours"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_broken_bodies(
    steps: list[Step],
    body: bytes,
    fault: type[httpx.TransportError],
    only_ours: bool,
    name: str,
    upstream: FakeUpstream,
) -> None:
    """A body that breaks off is never taken for a whole one."""
    if only_ours and name == STOCK:
        pytest.skip("the stock transport reads it")
    for gate in (step for step in steps if isinstance(step, Gate)):
        gate.open()
    got, connections = answered(name, upstream, steps)

    assert (got.fault, got.status) == (fault, 200)
    # A reset takes along what had not been read.
    assert got.body == body or (fault is httpx.ReadError and body.startswith(got.body))
    assert connections == 2


@pytest.mark.parametrize("junk", [b"junk", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse"])
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_behind_an_answer(junk: bytes, at_once: bool, upstream: FakeUpstream) -> None:
    """What nobody asked for spoils the connection, and is never taken for the next answer."""
    whole = LENGTH_2 + b"hi"
    upstream.answer([whole + junk] if at_once else [whole, junk], [whole])

    async def act() -> None:
        async with ours() as transport:
            assert (await ask(transport, asking(upstream.url))).body == b"hi"
            await asyncio.to_thread(server.until, lambda: not upstream.connections, "the connection to end")
            assert (await ask(transport, asking(upstream.url))).body == b"hi"

    run(act())
    assert upstream.accepted == 2


class Wire(asyncio.Transport):
    """The kernel's end of a connection whose reads a test makes up."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.calls: list[str] = []
        self._socket = socket.socket()
        connection.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the socket."""
        return self._socket if name == "socket" else default

    def is_closing(self) -> bool:
        """Say whether it was closed."""
        return "abort" in self.calls

    def get_write_buffer_size(self) -> int:
        """Say that everything was sent."""
        return 0

    def write(self, data: object) -> None:
        """Send nowhere."""

    def pause_reading(self) -> None:
        """Note it."""
        self.calls.append("pause")

    def resume_reading(self) -> None:
        """Note it."""
        self.calls.append("resume")

    def abort(self) -> None:
        """Note it."""
        self.calls.append("abort")

    def done(self) -> None:
        """Close the socket and end the connection."""
        self._socket.close()
        self.connection.connection_lost(None)


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wire, list[bool]]]:
    """Give a connection whose reads the test makes up, and how its exchanges ended."""
    ends: list[bool] = []
    connection = Connection(
        origin=Origin(b"http", b"upstream", 80),
        ended=lambda _, clean: ends.append(clean),
        lost=lambda _: None,
        loop=asyncio.get_running_loop(),
    )
    wire = Wire(connection)
    try:
        yield wire, ends
    finally:
        wire.done()


SPLIT = [
    (EARLY + head("B: 1", "A: 2", "Content-Length: 5") + b"hello", True),
    (EARLY + CHUNKED + chunk(b"he") + b"3;x=y\r\nllo\r\n0\r\nDigest: x\r\n\r\n", True),
    (head("Connection: close", "Content-Length: 5") + b"hello", False),
    (head() + b"hello", False),
]


@pytest.mark.parametrize(("raw", "kept"), SPLIT)
def test_every_split(raw: bytes, kept: bool) -> None:
    """An answer is the same wherever reads cut it: in two at every place, and byte by byte."""

    async def read(*pieces: bytes) -> None:
        async with wired() as (wire, ends):
            response = wire.connection.begin({}, without_body=False)
            wire.connection.sent()
            for piece in pieces:
                wire.connection.data_received(piece)
            wire.connection.eof_received()
            await response.head()
            assert b"".join([piece async for piece in response]) == b"hello"
            assert ends == [kept]

    async def act() -> None:
        for at in range(len(raw)):
            await read(*filter(None, (raw[:at], raw[at:])))
        await read(*(raw[at : at + 1] for at in range(len(raw))))

    run(act())


def test_back_pressure() -> None:
    """Where nobody reads, the connection is not read either, until half of what waits has been taken."""

    async def act() -> None:
        async with wired() as (wire, _):
            response = wire.connection.begin({}, without_body=False)
            wire.connection.data_received(head("Content-Length: 1000000") + b"x" * BUFFERED_BYTES_MAX)
            assert wire.calls == []
            wire.connection.data_received(b"x" * BUFFERED_BYTES_MAX)
            assert wire.calls == ["pause"]
            while wire.calls == ["pause"]:
                assert len(await anext(response)) <= CHUNK_BYTES_MAX
            assert wire.calls == ["pause", "resume"]
            await response.aclose()
            assert wire.calls == ["pause", "resume", "abort"]

    run(act())


def test_a_large_body_is_held_in_part(upstream: FakeUpstream) -> None:
    """Of a large body only so much waits in memory, and all of it comes."""
    upstream.answer([head("Content-Length: 32000000"), *([b"x" * 1_000_000] * 32)])

    async def act() -> int:
        async with ours() as transport:
            response = await transport.handle_async_request(asking(upstream.url))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            size = 0
            async for piece in response.stream:
                assert len(piece) <= CHUNK_BYTES_MAX
                size += len(piece)
            return size

    assert run(act()) == 32_000_000


class Pieces(httpx.AsyncByteStream):
    """A request body that is made as it is sent."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize("size", [0, 2, JOINED_BYTES_MAX + 1, 3_000_000])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_requests_as_sent(size: int, in_pieces: bool, name: str, upstream: FakeUpstream) -> None:
    """A request goes out with its target and headers as given, and its body whole."""
    upstream.answer([LENGTH_2 + b"hi"])
    body = random.Random(size).randbytes(size)
    stream = Pieces(body[: size // 3], body[size // 3 :]) if in_pieces else None
    request = asking(upstream.url + "/chat?a=b%20c", body, stream)
    request.headers["X-Two"] = "two  blanks"

    async def act() -> Got:
        async with opened(name) as transport:
            return await ask(transport, request)

    assert run(act()).body == b"hi"
    (received,) = upstream.received
    assert (received.target, received.body) == ("/v1/chat?a=b%20c", body)
    assert received.header("x-two") == "two  blanks"
    assert received.header("host") == "upstream"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda request: request.headers.update({b"a": b"b\r\nc: d"}),
        lambda request: request.headers.update({b"a": b"b\nc"}),
        lambda request: request.headers.update({b"a": b"b\0c"}),
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_requests_not_sent(
    spoil: Callable[[httpx.Request], None], in_pieces: bool, name: str, upstream: FakeUpstream
) -> None:
    """A request that would be read as another one is not sent."""
    upstream.answer([LENGTH_2 + b"hi"])
    request = asking(upstream.url, stream=Pieces(b"{}") if in_pieces else None)
    spoil(request)

    async def act() -> Got:
        async with opened(name) as transport:
            return await ask(transport, request)

    assert run(act()).fault is httpx.LocalProtocolError
    assert not upstream.received


@pytest.mark.parametrize("announced", [b"1", b"3"])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_request_of_another_length(announced: bytes, in_pieces: bool, upstream: FakeUpstream) -> None:
    """A body that is not as long as its request says makes no request."""
    upstream.answer([LENGTH_2 + b"hi"])
    request = asking(upstream.url, stream=Pieces(b"{}") if in_pieces else None)
    request.headers["content-length"] = announced.decode()

    async def act() -> Got:
        async with ours() as transport:
            return await ask(transport, request)

    assert run(act()).fault is httpx.LocalProtocolError
    assert not upstream.received


def test_an_encoded_request_is_not_sent(upstream: FakeUpstream) -> None:
    """A request is sent by its length alone."""
    request = asking(upstream.url, b"")
    request.headers["transfer-encoding"] = "chunked"

    async def act() -> Got:
        async with ours() as transport:
            return await ask(transport, request)

    assert run(act()).fault is httpx.LocalProtocolError


def test_another_scheme(name: str) -> None:
    """Only HTTP is spoken."""

    async def act() -> Got:
        async with opened(name) as transport:
            return await ask(transport, asking("ftp://127.0.0.1/"))

    assert run(act()).fault is httpx.UnsupportedProtocol


def test_heads_alone(name: str, upstream: FakeUpstream) -> None:
    """HEAD has no body, whatever its length says."""
    upstream.answer([head("Content-Length: 9"), Cut()])
    request = asking(upstream.url, b"")
    request.method = "HEAD"

    async def act() -> Got:
        async with opened(name) as transport:
            return await ask(transport, request)

    got = run(act())
    assert (got.fault, got.status, got.body) == (None, 200, b"")
