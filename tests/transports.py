"""Both transports to upstreams, and how a test sends a request by one."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
import uvloop

from meter.proxy.transport import Transport
from tests import fake_upstream
from tests.fake_upstream import FakeUpstream

OURS, STOCK = "httptools", "httpx"
PATIENT = {"connect": 20.0, "read": 20.0, "write": 20.0, "pool": 20.0}

T = TypeVar("T")


@pytest.fixture(scope="module", name="upstream_server")
def own_upstream() -> Iterator[FakeUpstream]:
    """Run an upstream to which nobody else keeps connections."""
    with fake_upstream.running() as running:
        yield running


def run(act: Coroutine[Any, Any, T]) -> T:
    """Run something on the event loop that meter runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(act)


@asynccontextmanager
async def opened(
    name: str, trusted: ssl.SSLContext | None = None, **limits: int
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """Open a transport."""
    context = trusted or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport: httpx.AsyncBaseTransport
    if name == OURS:
        transport = Transport(context, **limits)
    else:
        stock = httpx.Limits(max_connections=limits.get("connections_max"))
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=stock)
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def ours(trusted: ssl.SSLContext | None = None, **limits: int) -> AsyncIterator[Transport]:
    """Open our transport; at the end it holds no slot."""
    transport = Transport(trusted or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), **limits)
    try:
        yield transport
        assert transport.pool.slots_taken == 0
    finally:
        await transport.aclose()


@dataclass
class Got:
    """What came of a request."""

    status: int = 0
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    fault: type[BaseException] | None = None


def asking(
    url: str, body: bytes = b"{}", stream: httpx.AsyncByteStream | None = None, **timeouts: float
) -> httpx.Request:
    """Make a request as `Upstream` does."""
    return httpx.Request(
        "POST" if body else "GET",
        url,
        headers=[(b"host", b"upstream"), *([(b"content-length", b"%d" % len(body))] if body else [])],
        stream=stream or httpx.ByteStream(body),
        extensions={"timeout": PATIENT | timeouts},
    )


async def ask(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> Got:
    """Send a request and read the answer to its end, whatever that is."""
    got = Got()
    try:
        response = await transport.handle_async_request(request)
        got.status, got.headers = response.status_code, response.headers.raw
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            async for piece in response.stream:
                got.body += piece
        finally:
            await response.stream.aclose()
    except httpx.TransportError as fault:
        got.fault = type(fault)
    return got
