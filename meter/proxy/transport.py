"""httpx's transport to upstreams on httptools and asyncio: HTTP/1.1, for far less CPU than the stock one.

`send` is the same without httpx's objects, which take longer to make than all the rest: bytes go in, and what
comes out is the response on its way.

It raises httpx's exceptions where the stock one does, so that either can stand behind `Upstream`. It retries
nothing of which a byte was sent: a kept connection is looked at before it is used, and where it is not quiet
another one is taken.
"""

import ssl
from collections.abc import Iterable

import httpx

from meter.proxy.connection import OVERHEAD_BYTES_MAX, Connection, Origin
from meter.proxy.dialling import dialler
from meter.proxy.incoming import Incoming, Timeouts
from meter.proxy.pool import Pool

KEPT_MAX = 1000

_PORTS = {b"http": 80, b"https": 443}


class Transport(httpx.AsyncBaseTransport):
    """Sends requests over connections that are kept."""

    def __init__(
        self,
        trusted: ssl.SSLContext,
        *,
        connections_max: int | None = None,
        kept_max: int = KEPT_MAX,
        overhead_bytes_max: int = OVERHEAD_BYTES_MAX,
    ) -> None:
        # Some servers close on whoever does not say which HTTP it speaks.
        trusted.set_alpn_protocols(["http/1.1"])
        self.pool = Pool(
            dialler(trusted),
            connections_max=connections_max,
            kept_max=kept_max,
            overhead_bytes_max=overhead_bytes_max,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response as soon as its headers are here."""
        head, announced = _head(request)
        body = _whole_body(request.stream, announced)
        timeouts: Timeouts = request.extensions.get("timeout", {})
        connection = await self._take(origin_of(request.url), timeouts)
        response = connection.begin(timeouts, without_body=request.method == "HEAD")
        try:
            if body is not None:
                connection.send(head, body)
            else:
                await _send_pieces(connection, response, head, request.stream, announced)
            await response.head()
        except BaseException:
            connection.abandon(response)
            raise
        return httpx.Response(response.status, headers=response.headers, stream=response)

    async def send(self, origin: Origin, head: bytes, body: bytes, timeouts: Timeouts) -> Incoming:
        """Send a request that is here as a whole; returns its response as soon as the headers are here.

        `head` is from `request_head`, and says how long the body is.
        """
        connection = self.pool.take_kept(origin) or await self._take(origin, timeouts)
        response = connection.begin(timeouts, without_body=False)
        try:
            connection.send(head, body)
            await response.head()
        except BaseException:
            connection.abandon(response)
            raise
        return response

    async def _take(self, origin: Origin, timeouts: Timeouts) -> Connection:
        return await self.pool.take(origin, pool=timeouts.get("pool"), connect=timeouts.get("connect"))

    async def aclose(self) -> None:
        """Close every connection."""
        await self.pool.aclose()


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the head of a request; raises `LocalProtocolError` for what would be read as something else."""
    lines = [method + b" " + target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in headers]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    ends = len(lines) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head or b" " in target:
        raise httpx.LocalProtocolError("a header or the target would be read as something else")
    return head


def with_length(head: bytes, body_bytes: int) -> bytes:
    """Say in a head how long the body is."""
    return head[:-2] + b"content-length: %d\r\n\r\n" % body_bytes


def origin_of(url: httpx.URL) -> Origin:
    """Return what a connection has to lead to."""
    scheme = url.raw_scheme
    if scheme not in _PORTS:
        raise httpx.UnsupportedProtocol(f"{url.scheme!r} is neither http nor https")
    return Origin(scheme, url.raw_host, url.port or _PORTS[scheme])


def _head(request: httpx.Request) -> tuple[bytes, int]:
    """Write the head of a request; returns it with the length of the body that it announces."""
    headers = request.headers.raw
    announced = 0
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            announced = int(value)
        elif lowered == b"transfer-encoding":
            raise httpx.LocalProtocolError("a request is sent with its length, not with a transfer-encoding")
    return request_head(request.method.encode("ascii"), request.url.raw_path, headers), announced


def _whole_body(stream: object, announced: int) -> bytes | None:
    """Return a body that is here as a whole."""
    if not isinstance(stream, httpx.ByteStream):
        return None
    body = b"".join(stream)
    _check_length(len(body), announced)
    return body


async def _send_pieces(
    connection: Connection, response: Incoming, head: bytes, stream: object, announced: int
) -> None:
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("an asynchronous transport was given a synchronous stream")
    connection.write(head)
    size = 0
    async for piece in stream:
        size += len(piece)
        if size > announced:
            break
        connection.write(piece)
        if not await response.room_to_write():
            # Whoever answers before the end of a request does not want the rest of it.
            return
    _check_length(size, announced)
    connection.sent()


def _check_length(size: int, announced: int) -> None:
    if size != announced:
        raise httpx.LocalProtocolError(f"a body of {size} bytes was announced with {announced}")
