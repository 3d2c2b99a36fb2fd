"""A connection to an upstream: one exchange after the other, by httptools' parser.

A connection serves one response at a time, and says once of each that it has ended: `ended(self, True)`
if another request may follow, `ended(self, False)` after having closed in whatever could be doubted. `lost`
follows the end of every connection, so that none is remembered that is gone.
"""

import asyncio
import select
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools
import httpx

from meter.proxy.incoming import Incoming, Timeouts

# What may come without bringing the body on: headers, informational responses, trailers, chunk extensions.
OVERHEAD_BYTES_MAX = 102_400
KEPT_SECONDS_MAX = 30.0
# Head and body go by one write up to here.
JOINED_BYTES_MAX = 64 * 1024
# A server that says how long it keeps a connection is believed, but for the way of a request to it.
KEPT_MARGIN_SECONDS = 1.0

_STATUS_MIN = 100
_FINAL_STATUS_MIN = 200
_WITHOUT_BODY = frozenset({204, 304})


class Origin(NamedTuple):
    """What a connection leads to."""

    scheme: bytes
    host: bytes
    port: int


class RefusedError(Exception):
    """What came is well formed, and still not to be relied on."""


class Connection(asyncio.Protocol):
    """One connection, as asyncio's protocol and as httptools' listener."""

    def __init__(
        self,
        *,
        origin: Origin,
        ended: Callable[["Connection", bool], None],
        lost: Callable[["Connection"], None],
        loop: asyncio.AbstractEventLoop,
        overhead_bytes_max: int = OVERHEAD_BYTES_MAX,
    ) -> None:
        self.origin = origin
        self._overhead_bytes_max = overhead_bytes_max
        self.gone = loop.create_future()
        """Done when nothing is left of the connection."""
        self.writing_paused = False
        self._ended = ended
        self._lost = lost
        self._loop = loop
        self._transport = cast("asyncio.Transport", None)
        self._came: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self._came.append
        """For the parser, which calls it for every chunk, of which one read may bring hundreds."""
        self._parser = httptools.HttpResponseParser(self)
        self._response: Incoming | None = None
        self._sent_whole = False
        self._keeps_alive = False
        self._kept_seconds = KEPT_SECONDS_MAX
        self._overhead_bytes = 0
        self._header_bytes = 0
        self._encodings: list[bytes] = []
        self._has_length = False
        self._reading_paused = False
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._poll = select.poll()

    # What the transport asks of it.

    def begin(self, timeouts: Timeouts, *, without_body: bool) -> Incoming:
        """Begin an exchange; the connection has none."""
        self._response = Incoming(self, timeouts, without_body=without_body, loop=self._loop)
        self._sent_whole = False
        self._overhead_bytes = 0
        self._header_bytes = 0
        self._deadline = None
        return self._response

    def write(self, part: bytes) -> None:
        """Send a part of a request."""
        self._transport.write(part)

    def send(self, head: bytes, body: bytes) -> None:
        """Send a whole request; small ones go by one write, and larger ones are not copied."""
        if len(body) <= JOINED_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self._sent_whole = True

    def sent(self) -> None:
        """Say that the request has been written to its end."""
        self._sent_whole = True

    def quiet(self) -> bool:
        """Say whether it can be used again: it is open, and nothing has come that nobody asked for."""
        return not self._transport.is_closing() and not self._poll.poll(0)

    def abort(self) -> None:
        """Close it at once, and with it what is under way."""
        self._fail(httpx.ReadError("the connection was given up"))
        if self._transport is not None:
            self._transport.abort()

    # What a response asks of it.

    def expect(self, response: Incoming, seconds: float | None) -> None:
        """End a response with a time-out, unless something comes; `None` is any time."""
        if self._response is not response:
            return
        if seconds is None:
            self._deadline = None
        else:
            self._set_deadline(seconds)

    def read_on(self, response: Incoming) -> None:
        """Read on, where there was no room for more."""
        if self._response is response and self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    def abandon(self, response: Incoming) -> None:
        """Close the connection of a response of which nobody wants the rest."""
        if self._response is response:
            self._fail(httpx.ReadError("the response was given up"))

    # What asyncio tells it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Parse what came; nothing may come but the answer to a request."""
        response = self._response
        if response is None:
            self._transport.abort()
            return
        fault: httptools.HttpParserError | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as found:
            fault = found
        came, full = self._came, False
        brought = bool(came) and not response.without_body
        if brought:
            full = response.add(came[0] if len(came) == 1 else b"".join(came))
        came.clear()
        if fault is not None:
            self._misunderstood(response, fault)
            return
        if response.complete:
            self._end()
        elif not brought:
            self._add_overhead(len(data))
        else:
            self._overhead_bytes = 0
            if full and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()
        if response.begun:
            response.wake()

    def eof_received(self) -> None:
        """End a body that has no other end; over TLS this is called only where the end is authentic."""
        response = self._response
        if response is not None and response.begun and response.until_close:
            response.finish()
            self._end()
            response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if exc is not None:
            self._fail(httpx.ReadError(str(exc)))
        else:
            self._fail(httpx.RemoteProtocolError("the connection was closed before the response had ended"))
        self._lost(self)
        self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Take note that the other side is slow to read."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Go on writing, or wait for the answer from now on."""
        self.writing_paused = False
        if self._response is not None:
            self._response.wake()

    # What the parser tells it.

    def on_message_begin(self) -> None:
        """Begin a response, unless it is one too many."""
        if self._response is None or self._response.complete:
            raise RefusedError("something follows the response")
        self._encodings.clear()
        self._has_length = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header; trailers are read and dropped."""
        response = self._response
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._overhead_bytes_max:
            raise RefusedError(f"its headers have more than {self._overhead_bytes_max} bytes")
        if response is None or response.begun:
            return
        name, value = name.lower(), value.strip(b" \t")
        response.headers.append((name, value))
        if name == b"transfer-encoding":
            self._encodings.append(value.lower())
        elif name == b"content-length":
            self._has_length = True
        elif name == b"keep-alive":
            self._kept_seconds = _kept_seconds(value)

    def on_headers_complete(self) -> None:
        """Know how the body will end, and refuse what could be understood in two ways."""
        response = self._response
        if response is None:
            return
        status = self._parser.get_status_code()
        if status < _FINAL_STATUS_MIN:
            if status < _STATUS_MIN or self._parser.should_upgrade():
                raise RefusedError(f"a status of {status:03} was not asked for")
            return
        if self._encodings not in ([], [b"chunked"]):
            raise RefusedError("a transfer-encoding other than chunked was not asked for")
        response.status = status
        response.begun = True
        response.until_close = not (self._encodings or self._has_length or status in _WITHOUT_BODY)
        if response.without_body:
            # The parser does not know what was asked, and would wait for a body.
            response.finish()
            self._keeps_alive = False

    def on_message_complete(self) -> None:
        """Take note of the end; only here does the parser know whether the connection goes on."""
        response = self._response
        if response is None or response.complete:
            return
        if response.begun:
            response.finish()
            self._keeps_alive = self._parser.should_keep_alive()
        else:
            # It was informational.
            response.headers.clear()

    # How an exchange ends.

    def _end(self) -> None:
        """End a response that is here as a whole."""
        self._response = None
        clean = self._keeps_alive and self._sent_whole and not self._transport.is_closing()
        clean = clean and self._transport.get_write_buffer_size() == 0
        if clean:
            self._set_deadline(self._kept_seconds)
        else:
            self._transport.abort()
        self._ended(self, clean)

    def _fail(self, fault: httpx.TransportError) -> None:
        """End a response early."""
        response, self._response = self._response, None
        if response is not None:
            self._transport.abort()
            self._ended(self, False)  # noqa: FBT003 (a callback takes no names)
            response.fail(fault)

    def _misunderstood(self, response: Incoming, fault: httptools.HttpParserError) -> None:
        if response.complete:
            # What came behind the response spoils the connection, not the response.
            self._keeps_alive = False
            self._end()
            response.wake()
        else:
            self._fail(httpx.RemoteProtocolError(str(fault.__context__ or fault)))

    def _add_overhead(self, size: int) -> None:
        self._overhead_bytes += size
        if self._overhead_bytes > self._overhead_bytes_max:
            self._fail(
                httpx.RemoteProtocolError(f"more than {self._overhead_bytes_max} bytes came without a body")
            )

    def _set_deadline(self, seconds: float) -> None:
        deadline = self._deadline = self._loop.time() + seconds
        # A timer that rings too early looks again: there is one in minutes rather than one for every read.
        if self._timer is None or self._rings_at > deadline:
            self._set_timer(deadline)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline > self._loop.time():
            self._set_timer(self._deadline)
        elif self._response is None:
            self._transport.close()
        elif not self._response.awaited:
            self._deadline = None
        elif self.writing_paused:
            self._fail(httpx.WriteTimeout("the request was not taken in in time"))
        else:
            self._fail(httpx.ReadTimeout("nothing came in time"))


def _kept_seconds(keep_alive: bytes) -> float:
    """Read `timeout=5, max=100`, of which the time counts."""
    for parameter in keep_alive.split(b","):
        name, _, value = parameter.strip().partition(b"=")
        if name.lower() == b"timeout" and value.isdigit():
            return max(0.0, min(KEPT_SECONDS_MAX, int(value) - KEPT_MARGIN_SECONDS))
    return KEPT_SECONDS_MAX
