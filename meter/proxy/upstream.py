"""One upstream: opens exchanges with it, and says in meter's words what went wrong.

meter speaks to httpx's transport, not to its client: no cookie jar shared between tenants, no redirects
followed, no `.netrc`, no proxies from the environment, and the bytes undecoded.
"""

from typing import NamedTuple, Protocol

import httpx

from meter.core.errors import MeterError, UpstreamTimeout, UpstreamUnreachable
from meter.proxy.headers import Pairs, for_upstream, value_of
from meter.proxy.opening import Opening
from meter.proxy.transport import Transport, origin_of, request_head, with_length
from meter.settings import UpstreamSettings


class Timeouts(NamedTuple):
    """How long to wait for what, in seconds."""

    connect: float
    headers: float
    idle: float


class Exchange(Protocol):
    """A response under way: its status and headers are here, its body comes.

    Reading raises `httpx.TimeoutException` where nothing comes for too long, and `httpx.TransportError` where
    the upstream breaks off.
    """

    status: int
    headers: Pairs
    """With their names in lower case."""

    @property
    def whole(self) -> bool:
        """Whether all of the body is known to be here, so that one reading takes it."""

    @property
    def over(self) -> bool:
        """Whether all of the body is known to have been read."""

    async def read(self) -> bytes | None:
        """Return the next piece of the body as it arrives, or `None` at its end."""

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""


class _StockExchange:
    """A response of a transport that is not ours."""

    def __init__(self, response: httpx.Response) -> None:
        if not isinstance(response.stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport answered with a synchronous stream")
        self.status = response.status_code
        self.headers: Pairs = [(name.lower(), value) for name, value in response.headers.raw]
        self.whole = False
        self._stream = response.stream
        self._chunks = aiter(response.stream)
        length = value_of(self.headers, b"content-length")
        self._left = int(length) if length.isdecimal() else None

    @property
    def over(self) -> bool:
        """Whether as much of the body has been read as was announced."""
        return self._left == 0

    async def read(self) -> bytes | None:
        """Return the next piece of the body as it arrives, or `None` at its end."""
        chunk = await anext(self._chunks, None)
        if self._left is not None:
            self._left -= len(chunk or b"")
        return chunk

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        await self._stream.aclose()


class Upstream:
    """A provider, as configured, and the transport that reaches it."""

    def __init__(
        self, settings: UpstreamSettings, transport: httpx.AsyncBaseTransport, timeouts: Timeouts
    ) -> None:
        self.name = settings.name
        self.stream_usage = settings.stream_usage
        self.serves = settings.serves
        self._base = httpx.URL(settings.url)
        self._origin = origin_of(self._base)
        self._base_path = self._base.raw_path
        self._authority = self._base.netloc
        self.host = self._base.host
        self._api_key = settings.api_key
        self._transport = transport
        self._timeouts = timeouts
        self._until_head = {"connect": timeouts.connect, "read": timeouts.headers}
        self._within_body = {"read": timeouts.idle}

    async def open(self, path: str, *, query: bytes, headers: Pairs) -> Exchange:
        """Ask for something by GET, and wait for the response's headers.

        Raises `UpstreamUnreachable` or `UpstreamTimeout`, as `send` does.
        """
        target = self._target(path, query)
        sent = self._sent(headers, identity=False)
        try:
            if isinstance(self._transport, Transport):
                head = request_head(b"GET", target, sent)
                incoming = await self._transport.send(self._origin, head, b"", self._until_head)
                incoming.timeouts = self._within_body
                return incoming
            return await self._by_stock("GET", target, sent, b"")
        except httpx.TransportError as fault:
            raise self._refusal(fault) from fault

    async def send(
        self, path: str, opening: Opening, body: bytes, *, query: bytes, identity: bool
    ) -> Exchange:
        """Send a request by POST and wait for the response's headers; `identity` asks for no compression."""
        try:
            if isinstance(self._transport, Transport):
                head = with_length(self._head(path, opening, query, identity=identity), len(body))
                incoming = await self._transport.send(self._origin, head, body, self._until_head)
                incoming.timeouts = self._within_body
                return incoming
            length = (b"content-length", b"%d" % len(body))
            headers = [*self._sent(opening.headers, identity=identity), length]
            return await self._by_stock("POST", self._target(path, query), headers, body)
        except httpx.TransportError as fault:
            raise self._refusal(fault) from fault

    def _head(self, path: str, opening: Opening, query: bytes, *, identity: bool) -> bytes:
        """Return what goes before the length; all requests with this opening have the same."""
        key = (self.name, path, query, identity)
        head = opening.heads.get(key)
        if head is None:
            sent = self._sent(opening.headers, identity=identity)
            head = opening.heads[key] = request_head(b"POST", self._target(path, query), sent)
        return head

    def _sent(self, headers: Pairs, *, identity: bool) -> Pairs:
        api_key = None if self._api_key is None else self._api_key.reveal()
        return for_upstream(headers, host=self._authority, api_key=api_key, identity=identity)

    async def _by_stock(self, method: str, target: bytes, headers: Pairs, body: bytes) -> Exchange:
        patience = dict(self._until_head)
        request = httpx.Request(
            method,
            self._base.copy_with(raw_path=target),
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={"timeout": patience},
        )
        response = await self._transport.handle_async_request(request)
        # The transport looks here again when it reads the body.
        patience |= self._within_body
        return _StockExchange(response)

    def _target(self, path: str, query: bytes) -> bytes:
        return self._base_path + path.encode() + (b"?" + query if query else b"")

    async def aclose(self) -> None:
        """Close the transport and its connections."""
        await self._transport.aclose()

    def _refusal(self, fault: httpx.TransportError) -> MeterError:
        if isinstance(fault, httpx.ReadTimeout):
            return UpstreamTimeout(
                f"Upstream '{self.name}' sent no response headers within {self._timeouts.headers:g} seconds."
            )
        if isinstance(fault, httpx.ConnectTimeout):
            return UpstreamUnreachable(
                f"Upstream '{self.name}' could not be connected to within {self._timeouts.connect:g} seconds."
            )
        if isinstance(fault, httpx.ConnectError):
            return UpstreamUnreachable(f"Upstream '{self.name}' could not be connected to.")
        return UpstreamUnreachable(f"Upstream '{self.name}' closed the connection without an answer.")


def choose(upstreams: tuple[Upstream, ...], model: str) -> Upstream | None:
    """Return the first upstream that serves a model."""
    for upstream in upstreams:
        if upstream.serves(model):
            return upstream
    return None
