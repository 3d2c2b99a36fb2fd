"""What the data listener adds to uvicorn's HTTP: a client that has closed its sending side may still read.

TCP cannot tell that from a client that is gone: either way its last word is a FIN, and only what is then sent
to one that is gone comes back as a reset. uvicorn closes the connection at once. Here it stays open while a
request that is there as a whole is being answered, and whoever answers is told.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from meter.proxy.bounded import BoundedProtocol
from meter.proxy.joined import JoinedWrites

# Our own ASGI extension: the `Client` of a request.
_CLIENT = "meter.client"


class Client:
    """What the client of a request does beside sending it; whoever wants to know is called."""

    def __init__(self) -> None:
        self._closed = self._left = False
        self._on_closing: Callable[[], None] | None = None
        self._on_leaving: Callable[[], None] | None = None

    def watch(self, *, closing: Callable[[], None], leaving: Callable[[], None]) -> None:
        """Call as soon as it has closed its sending side, and when its connection is gone, be that now."""
        self._on_closing, self._on_leaving = closing, leaving
        if self._closed:
            closing()
        if self._left:
            leaving()

    def close(self) -> None:
        """Take note that it will send nothing more."""
        self._closed = True
        if self._on_closing is not None:
            self._on_closing()

    def leave(self) -> None:
        """Take note that it is gone."""
        self._left = True
        if self._on_leaving is not None:
            self._on_leaving()


class DataProtocol(BoundedProtocol):
    """uvicorn's protocol, in which the end of a request is not yet the end of its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have answers write what they write at once by one call."""
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is answered already before anything of the next request counts."""
        self._joined.flush()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Let the answer write there."""
        super().on_headers_complete()
        cycle = self.last_cycle()
        if cycle is not None:
            cycle.transport = self._joined  # type: ignore[assignment]  # It is written to, and closed.

    def shutdown(self) -> None:
        """Close when what has been answered is written."""
        self._joined.flush()
        super().shutdown()

    def on_message_begin(self) -> None:
        """Give each request its own client."""
        super().on_message_begin()
        self.scope["extensions"] = {_CLIENT: Client()}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever answers that there is nobody to answer any more."""
        super().connection_lost(exc)
        self._tell_leaving()

    def _end(self) -> None:
        self._joined.flush()
        super()._end()
        self._tell_leaving()

    def _tell_leaving(self) -> None:
        cycle = self.last_cycle()
        if cycle is not None and cycle.disconnected and not cycle.response_complete:
            client_of(cycle.scope).leave()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether the connection stays open for writing; uvicorn says nothing, and closes it."""
        cycle = self.last_cycle()
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        if self.pipeline:
            return False
        # There will be no other request.
        cycle.keep_alive = False
        client_of(cycle.scope).close()
        return True


def client_of(scope: Any) -> Client:
    """Return the client of a request, by its scope."""
    found: Client = scope["extensions"][_CLIENT]
    return found
