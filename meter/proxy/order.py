"""A metered request before its body is read, and the errand to an upstream that it becomes."""

from collections.abc import Awaitable

import msgspec

from meter.core.keys import Grant
from meter.proxy.load import Arrival
from meter.proxy.opening import Opening
from meter.proxy.routes import Match
from meter.proxy.upstream import Exchange, Upstream


class Order(msgspec.Struct, frozen=True):
    """A request of somebody who may make it."""

    found: Match
    grant: Grant
    opening: Opening
    query: bytes
    arrival: Arrival


class Errand:
    """A request to an upstream; it forgets what it carries once that answers: streams may last for hours."""

    __slots__ = ("_arrival", "_body", "_identity", "_opening", "_path", "_query", "_upstream")

    def __init__(self, upstream: Upstream, order: Order, body: bytes, *, identity: bool) -> None:
        """`identity` asks for an answer without compression."""
        self._upstream = upstream
        self._path = order.found.upstream_path
        self._query = order.query
        self._opening: Opening | None = order.opening
        self._arrival = order.arrival
        self._body = body
        self._identity = identity

    def send(self) -> Awaitable[Exchange]:
        """Send it, once; returns what waits for the answer's headers."""
        opening, body = self._opening, self._body
        if opening is None:
            raise RuntimeError("an errand is sent once")
        return self._upstream.send(self._path, opening, body, query=self._query, identity=self._identity)

    def forget(self) -> None:
        """Forget what was sent."""
        self._opening, self._body = None, b""
        self._arrival.forget()
