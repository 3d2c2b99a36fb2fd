"""How connections to upstreams are opened, kept, waited for and given up, by both transports."""

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trustme

from meter.proxy.dialling import Address, first_connected
from meter.proxy.transport import Transport
from tests import fake_upstream, server
from tests.fake_upstream import Cut, FakeUpstream, Gate, chunk, response, stream
from tests.transports import OURS, STOCK, Got, ask, asking, opened, ours, own_upstream, run  # noqa: F401 (a fixture)

HI = response(b"hi")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# Long enough that nothing else ends a test, short enough to wait for.
SOON = 0.05
CANCELLED_AT_ONCE = 500


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make a certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    """Trust that authority alone."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def names_asked() -> list[str]:
    """Keep the names that TLS clients asked for."""
    return []


@pytest.fixture(scope="module")
def tls_server(authority: trustme.CA, names_asked: list[str]) -> Iterator[FakeUpstream]:
    """Run an upstream with TLS, which is called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def note(_: object, name: str, __: object) -> None:
        names_asked.append(name)

    context.sni_callback = note
    with fake_upstream.running(context) as running:
        yield running


@pytest.fixture
def secure(tls_server: FakeUpstream) -> FakeUpstream:
    """Give the upstream with TLS, forgetful of earlier tests."""
    tls_server.reset()
    return tls_server


@pytest.fixture(params=[OURS, STOCK])
def name(request: pytest.FixtureRequest) -> str:
    """Take the one and the other."""
    chosen: str = request.param
    return chosen


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve connections as a test says, on the test's own loop."""
    ended: list[asyncio.Future[None]] = []

    async def to_its_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.get_running_loop().create_future()
        ended.append(end)
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()
        end.set_result(None)

    listening = await asyncio.start_server(to_its_end, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        listening.close()
        await asyncio.gather(*ended)


@pytest.fixture
def silent() -> Iterator[int]:
    """Give the port of a listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def fails(name: str, url: str, trusted: ssl.SSLContext | None = None, **timeouts: Any) -> Got:
    """Ask once."""

    async def act() -> Got:
        async with opened(name, trusted) as transport:
            return await ask(transport, asking(url, **timeouts))

    return run(act())


def test_refused(name: str, silent: int) -> None:
    """Where nobody listens, the fault is one of connecting."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert fails(name, f"http://127.0.0.1:{bound.getsockname()[1]}/").fault is httpx.ConnectError


def test_connecting_takes_too_long(name: str, silent: int, trusted: ssl.SSLContext) -> None:
    """The handshake is part of connecting."""
    assert fails(name, f"https://127.0.0.1:{silent}/", trusted, connect=SOON).fault is httpx.ConnectTimeout


def test_headers_take_too_long(name: str, silent: int) -> None:
    """An upstream that never answers is not waited for beyond the time for reading."""
    assert fails(name, f"http://127.0.0.1:{silent}/", read=SOON).fault is httpx.ReadTimeout


def test_a_body_takes_too_long(name: str, upstream: FakeUpstream) -> None:
    """Silence within a body is a time-out behind what has come."""
    never = Gate()
    upstream.answer([HEAD + chunk(b"hello"), never])
    got = fails(name, upstream.url, read=SOON)
    never.open()

    assert (got.fault, got.body) == (httpx.ReadTimeout, b"hello")


def test_the_time_for_reading_can_be_changed(name: str, upstream: FakeUpstream) -> None:
    """What stands in the request's extensions when the body is read counts for the body."""
    never = Gate()
    upstream.answer([HEAD + chunk(b"hello"), never])
    request = asking(upstream.url)

    async def act() -> None:
        async with opened(name) as transport:
            answer = await transport.handle_async_request(request)
            request.extensions["timeout"]["read"] = SOON
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            with pytest.raises(httpx.ReadTimeout):
                _ = [piece async for piece in answer.stream]
            await answer.stream.aclose()

    run(act())
    never.open()


def test_a_reader_that_takes_its_time(upstream: FakeUpstream) -> None:
    """Time in which nobody waits for the upstream is not the upstream's."""
    upstream.answer([HEAD + chunk(b"hello"), b"0\r\n\r\n"])

    async def act() -> bytes:
        async with ours() as transport:
            answer = await transport.handle_async_request(asking(upstream.url, read=SOON))
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            first = await anext(aiter(answer.stream))
            # The time-out would have come within this.
            await asyncio.sleep(3 * SOON)
            return first + b"".join([piece async for piece in answer.stream])

    assert run(act()) == b"hello"


def test_writing_takes_too_long(name: str, silent: int) -> None:
    """An upstream that does not take a request in is not waited for beyond the time for writing."""

    async def act() -> Got:
        async with opened(name) as transport:
            large = asking(f"http://127.0.0.1:{silent}/", b"x" * 20_000_000, write=SOON)
            return await ask(transport, large)

    assert run(act()).fault is httpx.WriteTimeout


def test_waiting_for_a_connection_takes_too_long(name: str, upstream: FakeUpstream) -> None:
    """With all connections in use, one is waited for in vain, and taken once it is free."""
    gate = Gate()
    upstream.answer([HEAD + chunk(b"a"), gate, b"0\r\n\r\n"], [HI])

    async def act() -> tuple[Got, Got, Got]:
        async with opened(name, connections_max=1) as transport:
            first = asyncio.create_task(ask(transport, asking(upstream.url)))
            await asyncio.to_thread(gate.reached.wait)
            second = await ask(transport, asking(upstream.url, pool=SOON))
            third = asyncio.create_task(ask(transport, asking(upstream.url)))
            await asyncio.sleep(0)
            gate.open()
            return await first, second, await third

    first, second, third = run(act())
    assert (first.fault, first.body) == (None, b"a")
    assert second.fault is httpx.PoolTimeout
    assert (third.fault, third.body) == (None, b"hi")
    assert upstream.accepted == 1


def test_tls(name: str, secure: FakeUpstream, trusted: ssl.SSLContext, names_asked: list[str]) -> None:
    """TLS asks for the name that it verifies; an address that does not answer is passed over."""
    secure.answer([HI], [HEAD + chunk(b"x" * 300_000) + b"0\r\n\r\n"])
    names_asked.clear()
    url = f"https://localhost:{secure.port}/"

    async def act() -> list[Got]:
        async with opened(name, trusted) as transport:
            return [await ask(transport, asking(url)) for _ in range(2)]

    first, second = run(act())
    assert (first.fault, first.body) == (None, b"hi")
    assert (second.fault, len(second.body)) == (None, 300_000)
    assert names_asked == ["localhost"]
    assert secure.accepted == 1


def test_tls_of_another_name(name: str, secure: FakeUpstream, trusted: ssl.SSLContext) -> None:
    """A certificate for another name is not accepted."""
    assert fails(name, f"https://127.0.0.1:{secure.port}/", trusted).fault is httpx.ConnectError
    assert not secure.received


def test_tls_by_another_authority(name: str, secure: FakeUpstream) -> None:
    """A certificate by an unknown authority is not accepted."""
    strange = ssl.create_default_context()
    assert fails(name, f"https://localhost:{secure.port}/", strange).fault is httpx.ConnectError
    assert not secure.received


def test_no_tls_at_all(name: str, trusted: ssl.SSLContext) -> None:
    """A server that does not speak TLS is none for https."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response(status="400 Bad Request"))

    async def act() -> Got:
        async with serving(serve) as url, opened(name, trusted) as transport:
            return await ask(transport, asking(url.replace("http:", "https:")))

    assert run(act()).fault is httpx.ConnectError


@pytest.mark.parametrize("honest", [True, False])
def test_the_end_over_tls_is_authentic(honest: bool, secure: FakeUpstream, trusted: ssl.SSLContext) -> None:
    """Where the end of the connection ends the body, TLS must have said so: anyone can cut a connection."""
    secure.answer([b"HTTP/1.1 200 OK\r\n\r\nhello", Cut(reset=not honest)])

    got = fails(OURS, f"https://localhost:{secure.port}/", trusted)

    assert got.fault in ((None,) if honest else (httpx.RemoteProtocolError, httpx.ReadError))


def test_the_next_address_is_tried() -> None:
    """An address that leads nowhere costs a quarter of a second, not the connection."""

    async def act() -> None:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            socket.create_server(("127.0.0.1", 0)) as free,
        ):
            # A queue that is full lets nobody in, as a network that drops packets does.
            crowd = [socket.socket() for _ in range(3)]
            for each in crowd:
                each.setblocking(False)
                with suppress(BlockingIOError):
                    each.connect(full.getsockname())
            places = [Address(socket.AF_INET, each.getsockname()) for each in (full, free)]
            with await first_connected(places) as found:
                assert found.getpeername() == free.getsockname()
            for each in crowd:
                each.close()
            free.close()
            with pytest.raises(OSError, match=r"failed.*failed"):
                await first_connected([places[1], places[1]])

    run(act())


def test_a_connection_that_was_closed_while_it_waited(upstream: FakeUpstream) -> None:
    """A kept connection is looked at before it is used, so that no byte goes to one that has ended."""
    upstream.answer([HI, Cut()], [HI])

    async def act() -> None:
        async with ours() as transport:
            assert (await ask(transport, asking(upstream.url))).body == b"hi"
            # The loop stands still, so that it learns nothing of the end.
            while upstream.connections:
                time.sleep(0.001)  # noqa: ASYNC251 (that is the point)
            assert (await ask(transport, asking(upstream.url))).body == b"hi"

    run(act())
    assert (len(upstream.received), upstream.accepted) == (2, 2)


def test_nothing_is_sent_twice(name: str, upstream: FakeUpstream) -> None:
    """A request that was sent is not sent again, even if its connection had been kept."""
    upstream.answer([HI], [Cut()], [HI])

    async def act() -> list[Got]:
        async with opened(name) as transport:
            return [await ask(transport, asking(upstream.url)) for _ in range(3)]

    first, second, third = run(act())
    assert (first.body, second.fault, third.body) == (b"hi", httpx.RemoteProtocolError, b"hi")
    assert len(upstream.received) == 3


def test_a_server_says_how_long_it_keeps_connections(upstream: FakeUpstream) -> None:
    """A connection is given up before its server does."""
    upstream.answer([response(b"hi", headers=[("Keep-Alive", "max=9, timeout=1")])])

    async def act() -> None:
        async with ours() as transport:
            await ask(transport, asking(upstream.url))
            assert transport.pool.kept == 1
            await asyncio.to_thread(server.until, lambda: not upstream.connections, "the connection to end")
            assert transport.pool.kept == 0

    run(act())


def test_so_many_are_kept(upstream: FakeUpstream) -> None:
    """More connections than are to be kept are closed as they become free."""
    gate = Gate()
    upstream.answer([HEAD, gate, b"0\r\n\r\n"])

    async def act() -> None:
        async with ours(kept_max=2) as transport:
            answers = [asyncio.create_task(ask(transport, asking(upstream.url))) for _ in range(5)]
            await asyncio.to_thread(server.until, lambda: len(upstream.received) == 5, "all requests")
            gate.open()
            await asyncio.gather(*answers)
            assert transport.pool.kept == 2

    run(act())


def test_kept_connections_count(
    upstream: FakeUpstream, secure: FakeUpstream, trusted: ssl.SSLContext
) -> None:
    """A connection kept for one server makes room for one to another."""
    upstream.answer([HI])
    secure.answer([HI])

    async def act() -> None:
        async with ours(trusted, connections_max=1) as transport:
            for url in (upstream.url, f"https://localhost:{secure.port}/", upstream.url):
                assert (await ask(transport, asking(url))).body == b"hi"
                assert transport.pool.kept == 1

    run(act())
    assert (upstream.accepted, secure.accepted) == (2, 1)


def test_an_unread_body(name: str, upstream: FakeUpstream) -> None:
    """A response that is given up takes its connection along, so that the provider stops."""
    never = Gate()
    upstream.answer([HEAD + chunk(b"hello"), never], [HI])

    async def act() -> Got:
        async with opened(name) as transport:
            answer = await transport.handle_async_request(asking(upstream.url))
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            await answer.stream.aclose()
            await answer.stream.aclose()
            return await ask(transport, asking(upstream.url))

    assert run(act()).body == b"hi"
    assert upstream.received[0].hung_up.wait(20)
    never.open()
    assert upstream.accepted == 2


def test_an_answer_before_the_request_has_ended() -> None:
    """Who answers early is heard, and the connection is not used again."""
    accepted: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"too large", status="413 Too Large"))
        while await reader.read(65536):
            pass

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 100_000
                await asyncio.sleep(0)

    async def act() -> None:
        async with serving(serve) as url:
            async with ours() as transport:
                for sent in (None, Endless()):
                    got = await ask(transport, asking(url, b"x" * 20_000_000, sent))
                    assert (got.fault, got.status, got.body) == (None, 413, b"too large")
            assert len(accepted) == 2

    run(act())


def test_closing_ends_everything(upstream: FakeUpstream) -> None:
    """A transport that is closed leaves nobody waiting, and takes no request."""
    never = Gate()
    upstream.answer([HEAD + chunk(b"a"), never])

    async def act() -> tuple[Got, Got]:
        transport = Transport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connections_max=1)
        reading = asyncio.create_task(ask(transport, asking(upstream.url)))
        await asyncio.to_thread(never.reached.wait)
        waiting = asyncio.create_task(ask(transport, asking(upstream.url)))
        await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(RuntimeError):
            await transport.handle_async_request(asking(upstream.url))
        got = await reading, await waiting
        assert transport.pool.slots_taken == 0
        return got

    reading, waiting = run(act())
    never.open()
    assert (reading.fault, waiting.fault) == (httpx.ReadError, httpx.PoolTimeout)


def test_cancelled_at_every_await(
    upstream: FakeUpstream, secure: FakeUpstream, trusted: ssl.SSLContext
) -> None:
    """Wherever a request is cancelled, no slot is lost and the next one is answered."""
    for each in (upstream, secure):
        each.answer([b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + chunk(b"a"), chunk(b"b"), b"0\r\n\r\n"])

    async def act(url: str) -> None:
        async with ours(trusted, connections_max=1) as transport:
            for steps in itertools.count():
                asked = asyncio.create_task(ask(transport, asking(url, b"x" * 100_000)))
                queued = asyncio.create_task(ask(transport, asking(url)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                ended = asked.done()
                asked.cancel()
                with suppress(asyncio.CancelledError):
                    await asked
                assert (await queued).body == b"ab"
                assert transport.pool.slots_taken == 0
                if ended:
                    return

    run(act(upstream.url))
    run(act(f"https://localhost:{secure.port}/"))


def test_hundreds_are_cancelled_at_once(upstream: FakeUpstream) -> None:
    """With a pool that many wait for, whoever is cancelled takes no slot along."""
    upstream.answer([HEAD + chunk(b"a"), b"0\r\n\r\n"])

    async def act() -> None:
        async with ours(connections_max=5) as transport:
            asked = [
                asyncio.create_task(ask(transport, asking(upstream.url))) for _ in range(CANCELLED_AT_ONCE)
            ]
            for at, each in enumerate(asked):
                if at % 5 == 0:
                    await asyncio.sleep(0)
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert transport.pool.slots_taken == 0
            assert (await ask(transport, asking(upstream.url))).body == b"a"

    run(act())


def test_hundreds_are_answered_by_few(upstream: FakeUpstream) -> None:
    """Those who wait for a connection get one, in their order, and all of them are answered."""
    upstream.answer(stream(b"a"))

    async def act() -> list[Got]:
        async with ours(connections_max=5) as transport:
            return await asyncio.gather(*(ask(transport, asking(upstream.url)) for _ in range(200)))

    assert {got.body for got in run(act())} == {b"a"}
    assert upstream.accepted == 5
