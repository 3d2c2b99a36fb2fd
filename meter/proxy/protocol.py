"""What the data listener adds to uvicorn's HTTP: a client that has closed its sending side may still read.

TCP cannot tell that from a client that is gone: either way its last word is a FIN, and only what is then sent
to one that is gone comes back as a reset. uvicorn closes the connection at once. Here it stays open while a
request that is there as a whole is being answered, and whoever answers is told.
"""

import asyncio
from typing import Any, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from meter.proxy.bounded import BoundedProtocol
from meter.proxy.cycle import Client, Cycle
from meter.proxy.headers import Pairs
from meter.proxy.joined import JoinedWrites
from meter.proxy.opening import CONTENT_LENGTH, Opening
from meter.proxy.order import Order
from meter.proxy.repeated import Repeated, repeated

# Our own ASGI extension: the `Client` of a request.
_CLIENT = "meter.client"
# Uvicorn stops reading where more of a body waits.
BODY_BYTES_MAX = 64 * 1024
# So much may wait for a client before nothing more is read for it: a fast one should never wait for us.
UNSENT_BYTES_MAX = 256 * 1024


class Direct(Protocol):
    """Whoever answers ordinary requests without ASGI."""

    def opening(self, headers: Pairs) -> Opening | None:
        """Read a head; `None` where there is more to be said about it."""

    def accept(self, url: bytes, opening: Opening, body_bytes: int) -> Order | None:
        """Take on a request whose body is still to come; `None` where it is no ordinary one."""

    def answer(self, order: Order, body: bytes, client: Cycle) -> None:
        """Answer it, from now on."""


class _Coming(msgspec.Struct, frozen=True):
    """A request that was taken on, and whose body comes."""

    order: Order
    cycle: Cycle


class DataProtocol(BoundedProtocol):
    """uvicorn's protocol, in which the end of a request is not yet the end of its answer.

    Ordinary requests are answered without ASGI; everything else is uvicorn's to serve.
    """

    def __init__(self, *arguments: Any, direct: Direct | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._direct = direct
        self._opening: Opening | None = None
        self._coming: _Coming | None = None
        self._repeated: Repeated | None = None
        self._missing_bytes = 0
        """How much is missing of the body of a request whose head was not parsed."""
        self._first_bytes = b""
        """What came together with the beginning of the request that is being parsed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have answers write what they write at once by one call."""
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is answered already before anything of the next request counts."""
        self._joined.flush()
        if self._missing_bytes:
            data = self._take_body(data)
        elif self._repeated is not None and self.between_requests:
            data = self._take_repeated(data, self._repeated)
        if data:
            self._first_bytes = data if self.between_requests else b""
            super().data_received(data)

    def begin_answering(self) -> None:
        """Take an ordinary request on, or let uvicorn answer it."""
        if self.takes_on():
            return
        self.scope["extensions"] = {_CLIENT: Client()}  # type: ignore[dict-item]
        super().begin_answering()
        cycle = self.last_cycle()
        if cycle is not None:
            cycle.transport = self._joined  # type: ignore[assignment]  # It is written to, and closed.

    def on_message_complete(self) -> None:
        """Answer a request that was taken on and is here as a whole."""
        super().on_message_complete()
        if self._coming is not None and not self._coming.cycle.more_body:
            self._answer(self._coming)

    def shutdown(self) -> None:
        """Close when what has been answered is written."""
        self._joined.flush()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever answers that there is nobody to answer any more."""
        super().connection_lost(exc)
        self._tell_leaving()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether the connection stays open for writing; uvicorn says nothing, and closes it."""
        cycle = self.last_cycle()
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        if self.pipeline:
            return False
        # There will be no other request.
        cycle.keep_alive = False
        _client(cycle).close()
        return True

    # How it takes requests on.

    def takes_on(self) -> bool:
        """Take a request on that is ordinary, and say whether it is."""
        if self._direct is None or self.app is not self.config.loaded_app or self._answers():
            return False
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        length, opening = self._read_head(self._direct)
        if opening is None or not length.isdigit() or int(length) > BODY_BYTES_MAX:
            return False
        order = self._direct.accept(self.url, opening, int(length))
        if order is None:
            return False
        keep_alive = self.parser.should_keep_alive()
        self._coming = self._begin(order, keep_alive=keep_alive)
        self._repeated = repeated(
            self._first_bytes, len(self.headers), url=self.url, opening=opening, keep_alive=keep_alive
        )
        return True

    def _begin(self, order: Order, *, keep_alive: bool) -> _Coming:
        cycle = Cycle(self, self.scope, keep_alive=keep_alive)
        cycle.watch(closing=None, leaving=order.arrival.release)
        self.cycle = cycle  # type: ignore[assignment]  # It has what uvicorn looks at.
        return _Coming(order, cycle)

    def _answer(self, coming: _Coming) -> None:
        self._coming = None
        cycle = coming.cycle
        body, cycle.body = cycle.body, b""
        # From here on it is whoever answers that gives back what was taken.
        cycle.watch(closing=None, leaving=None)
        if self._direct is not None:
            self._direct.answer(coming.order, body, cycle)

    def _take_repeated(self, data: bytes, known: Repeated) -> bytes:
        """Take a request on whose head is known; returns what is still to be parsed."""
        found = known.find(data)
        if found is None or self._direct is None:
            return data
        at, length = found
        order = self._direct.accept(known.url, known.opening, length) if length <= BODY_BYTES_MAX else None
        if order is None:
            return data
        # Nobody asks for more of it than whether it is still the same.
        self.scope = {}  # type: ignore[typeddict-item]
        self._coming = self._begin(order, keep_alive=known.keep_alive)
        self.head_came()
        self._missing_bytes = length
        return self._take_body(data[at:])

    def _take_body(self, data: bytes) -> bytes:
        """Take in what comes of the body of such a request; returns what follows it."""
        if self._coming is None or self.ending:
            return b""
        cycle = self._coming.cycle
        piece = data[: self._missing_bytes]
        cycle.body += piece
        self._missing_bytes -= len(piece)
        self.body_came(whole=not self._missing_bytes)
        if not self._missing_bytes:
            cycle.more_body = False
            self._answer(self._coming)
        return data[len(piece) :]

    def _answers(self) -> bool:
        cycle = self.last_cycle()
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete)

    def _read_head(self, direct: Direct) -> tuple[bytes, Opening | None]:
        length, rest = b"", []
        for header in self.headers:
            if header[0] == CONTENT_LENGTH:
                length = header[1]
            else:
                rest.append(header)
        if self._opening is None or self._opening.headers != rest:
            self._opening = direct.opening(rest)
        return length, self._opening

    # How it ends.

    def _end(self) -> None:
        self._joined.flush()
        super()._end()
        self._tell_leaving()

    def _tell_leaving(self) -> None:
        cycle = self.last_cycle()
        if cycle is not None and cycle.disconnected and not cycle.response_complete:
            _client(cycle).leave()


def client_of(scope: Any) -> Client:
    """Return the client of a request, by its scope."""
    found: Client = scope["extensions"][_CLIENT]
    return found


def _client(cycle: RequestResponseCycle | Cycle) -> Client:
    return cycle if isinstance(cycle, Cycle) else client_of(cycle.scope)
