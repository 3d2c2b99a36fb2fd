"""One upstream: opens exchanges with it, and says in meter's words what went wrong.

meter speaks to httpx's transport, not to its client: no cookie jar shared between tenants, no redirects
followed, no `.netrc`, no proxies from the environment, and the bytes undecoded.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import httpx

from meter.core.errors import MeterError, UpstreamTimeout, UpstreamUnreachable
from meter.proxy.headers import Pairs, for_upstream
from meter.proxy.incoming import Incoming
from meter.proxy.transport import Transport, origin_of, request_head
from meter.settings import UpstreamSettings


class UpstreamClosedError(Exception):
    """The upstream broke off within its response."""


class UpstreamStalledError(Exception):
    """The upstream was silent within its response for longer than it may."""


class Timeouts(NamedTuple):
    """How long to wait for what, in seconds."""

    connect: float
    headers: float
    idle: float


class Exchange:
    """A response under way: its status and headers are here, its body comes."""

    def __init__(self, status: int, headers: Pairs, body: httpx.AsyncByteStream) -> None:
        self.status = status
        self.headers: Pairs = [(name.lower(), value) for name, value in headers]
        self._body = body
        self._next: Callable[[], Awaitable[bytes | None]]
        self._next = body.read if isinstance(body, Incoming) else partial(anext, aiter(body), None)

    @property
    def whole(self) -> bool:
        """Whether all of the body is known to be here, so that one reading takes it."""
        return isinstance(self._body, Incoming) and self._body.whole

    async def read(self) -> bytes | None:
        """Return the next piece of the body as it arrives, or `None` at its end.

        Raises `UpstreamClosedError` or `UpstreamStalledError`.
        """
        try:
            return await self._next()
        except httpx.TimeoutException as fault:
            raise UpstreamStalledError from fault
        except httpx.TransportError as fault:
            raise UpstreamClosedError from fault

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        await self._body.aclose()


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

    async def open(
        self,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        headers: Pairs,
        body: bytes = b"",
        identity: bool = False,
    ) -> Exchange:
        """Send a request and wait for the response's headers.

        Raises `UpstreamUnreachable` or `UpstreamTimeout`; `identity` asks for no compression.
        """
        target = self._base_path + path.encode() + (b"?" + query if query else b"")
        api_key = self._api_key.reveal() if self._api_key is not None else None
        sent = for_upstream(
            headers, host=self._authority, api_key=api_key, length=len(body), identity=identity
        )
        patience = {"connect": self._timeouts.connect, "read": self._timeouts.headers}
        try:
            exchange = await self._exchange(method, target, sent, body, patience)
        except httpx.TransportError as fault:
            raise self._refusal(fault) from fault
        # The transport looks here again when it reads the body.
        patience["read"] = self._timeouts.idle
        return exchange

    async def _exchange(
        self, method: str, target: bytes, headers: Pairs, body: bytes, patience: dict[str, float]
    ) -> Exchange:
        if isinstance(self._transport, Transport):
            head = request_head(method.encode(), target, headers)
            incoming = await self._transport.send(self._origin, head, body, patience)
            return Exchange(incoming.status, incoming.headers, incoming)
        request = httpx.Request(
            method,
            self._base.copy_with(raw_path=target),
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={"timeout": patience},
        )
        response = await self._transport.handle_async_request(request)
        if not isinstance(response.stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport answered with a synchronous stream")
        return Exchange(response.status_code, response.headers.raw, response.stream)

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
    return next((upstream for upstream in upstreams if upstream.serves(model)), None)
