"""What both listeners add to uvicorn's HTTP: bounds of size and of time.

uvicorn waits for ever for whoever sends nothing, or reads nothing. Here every wait of a connection has its
end, which the watch of `Connections` finds.
"""

import asyncio
from enum import Enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from meter.core.errors import HeadersTooLarge, InvalidRequest, MeterError, RequestTimeout
from meter.proxy.answers import last_words
from meter.proxy.connections import Connections
from meter.proxy.strict import StrictProtocol

# Requests that wait behind others on their connections, of all connections; each takes some kilobytes.
PIPELINED_MAX = 10_000
# How long whoever was refused has for reading that: closing at once would reset what still sends.
LINGER_SECONDS = 2.0
# Between a header's name and its value, and behind it.
_HEADER_FRAMING_BYTES = 4


class _Phase(Enum):
    """What a connection is at."""

    HEAD = "the request line and headers come"
    BODY = "the body comes"
    WHOLE = "the request is here"
    IDLE = "between two requests"
    ENDING = "refused: nothing that comes counts"


class _RefusedError(Exception):
    """Ends the parsing of what is refused."""


class BoundedProtocol(StrictProtocol):
    """The protocol in which nothing grows or waits without end."""

    def __init__(self, *arguments: Any, connections: Connections, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._connections = connections
        self._limits = connections.limits
        self._phase = _Phase.HEAD
        self._since = self._body_since = connections.now
        self._unread_bytes = 0
        """How much has come since anything came of use."""
        self._packet_bytes = 0
        """How much came last."""
        self._joined_bytes = 0
        """How much of the next request may have come together with the end of the last one."""
        self._pipelined = 0
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._refusal: MeterError | None = None

    # What asyncio tells it.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, if there is room."""
        super().connection_made(transport)
        connections = self._connections
        if not connections.add(self):
            self._phase = _Phase.ENDING
            transport.abort()
        elif connections.crowded:
            self.app = connections.overflow

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.discard(self)
        self.pipeline.clear()
        self._count_pipelined()
        if self.flow.write_paused:
            self._connections.stalled -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what leads to nothing."""
        if self._phase is _Phase.ENDING:
            return
        self._packet_bytes = len(data)
        self._unread_bytes += self._packet_bytes
        super().data_received(data)
        if self._unread_bytes > self._limits.header_bytes_max and self._phase in {_Phase.HEAD, _Phase.BODY}:
            self._refuse_headers()
            self._end()

    def pause_writing(self) -> None:
        """Take note that the client is slow to read."""
        super().pause_writing()
        connections = self._connections
        connections.stalled += 1
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._unsent_since = connections.now

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._connections.stalled -= 1
        self._unsent_since = 0.0

    # What the parser tells it.

    def on_message_begin(self) -> None:
        """Begin to wait for the headers."""
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._since = self._connections.now

    def on_headers_complete(self) -> None:
        """Look at what the headers come to, and begin to wait for the body."""
        bytes_max = self._limits.header_bytes_max
        # What has come is more than the headers: only where it is too much, they are counted alone.
        if self._unread_bytes + self._joined_bytes > bytes_max and self._header_bytes() > bytes_max:
            self._refuse_headers()
            raise _RefusedError
        self._unread_bytes = self._joined_bytes = 0
        self._phase = _Phase.BODY
        self._since = self._body_since = self._connections.now
        super().on_headers_complete()
        if self.pipeline:
            self._count_pipelined()
            if self._connections.pipelined > PIPELINED_MAX:
                self._connections.cut("pipelined")
                self.transport.abort()
                raise _RefusedError

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        self._unread_bytes = 0
        self._since = self._connections.now
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the answer, or where that was quicker, for the next request."""
        super().on_message_complete()
        cycle = self.last_cycle()
        if cycle is None or cycle.scope is not self.scope:
            # It begins again.
            return
        self._unread_bytes = 0
        self._joined_bytes = self._packet_bytes
        self._since = self._connections.now
        self._phase = _Phase.IDLE if cycle.response_complete else _Phase.WHOLE

    # What a request is at whose head was not parsed.

    @property
    def between_requests(self) -> bool:
        """Whether nothing of the next request has come."""
        if self._phase is _Phase.HEAD:
            return self.last_cycle() is None and not self._unread_bytes
        return self._phase is _Phase.IDLE

    def head_came(self) -> None:
        """Wait for the body."""
        self._phase = _Phase.BODY
        self._since = self._body_since = self._connections.now
        self._unread_bytes = self._joined_bytes = 0

    def body_came(self, *, whole: bool) -> None:
        """Wait for the rest of the body, or for the answer."""
        self._since = self._connections.now
        if whole:
            self._phase = _Phase.WHOLE

    @property
    def ending(self) -> bool:
        """Whether nothing that comes counts any more."""
        return self._phase is _Phase.ENDING

    # What uvicorn tells it.

    def on_response_complete(self) -> None:
        """Go on to the next request, without a timer for one that never comes."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._count_pipelined()
            return
        self._since = self._connections.now
        if self._phase is _Phase.WHOLE:
            self._phase = _Phase.IDLE

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (as uvicorn calls it)
        """Answer to what the parser did not take."""
        self._refusal = self._refusal or InvalidRequest("What came is not a valid HTTP/1.1 request.")
        self._end()

    # What the watch asks of it.

    def look(self, now: float) -> None:
        """End what has taken too long."""
        if self._phase is _Phase.ENDING:
            if now - self._since >= LINGER_SECONDS:
                self.transport.abort()
        elif self.flow.write_paused or self.transport.is_closing():
            self._look_at_writing(now)
        elif self._phase is _Phase.WHOLE:
            return
        elif self._phase is _Phase.IDLE:
            if now - self._since >= self._limits.idle_seconds_max:
                self.transport.close()
        elif not self._answering():
            self._look_at_reading(now)

    def _look_at_writing(self, now: float) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes or not self._unsent_since:
            self._unsent_bytes, self._unsent_since = unsent_bytes, now
        elif now - self._unsent_since >= self._limits.stall_seconds_max:
            self._connections.cut("client_stalled")
            self.transport.abort()

    def _look_at_reading(self, now: float) -> None:
        silent_seconds, limits = now - self._since, self._limits
        if self._phase is _Phase.HEAD:
            if silent_seconds < limits.headers_seconds_max:
                return
            if not self._unread_bytes:
                # Whoever has asked for nothing waits for no answer.
                self.transport.close()
                return
            self._time_out(f"The headers did not come within {limits.headers_seconds_max:g} seconds.")
        elif silent_seconds >= limits.body_idle_seconds_max:
            self._time_out(f"Nothing of the body came for {limits.body_idle_seconds_max:g} seconds.")
        elif now - self._body_since >= limits.body_seconds_max:
            self._time_out(f"The body did not come within {limits.body_seconds_max:g} seconds.")

    def _answering(self) -> bool:
        """Say whether an earlier request is still being answered, or the client is not read at all."""
        if self.flow.read_paused or self.pipeline:
            return True
        cycle = self.last_cycle()
        return self._phase is _Phase.HEAD and cycle is not None and not cycle.response_complete

    def last_cycle(self) -> RequestResponseCycle | None:
        """Return the request that came last, of which there is none at first, whatever the type says."""
        return self.cycle

    # How it ends.

    def _count_pipelined(self) -> None:
        self._connections.pipelined += len(self.pipeline) - self._pipelined
        self._pipelined = len(self.pipeline)

    def _header_bytes(self) -> int:
        headers = sum(len(name) + len(value) + _HEADER_FRAMING_BYTES for name, value in self.headers)
        return len(self.url) + headers

    def _refuse_headers(self) -> None:
        self._connections.cut("header_bytes")
        self._refusal = HeadersTooLarge(
            f"The request line and headers are larger than {self._limits.header_bytes_max} bytes "
            "(the setting header_bytes_max)."
        )

    def _time_out(self, why: str) -> None:
        self._connections.cut("headers_timeout" if self._phase is _Phase.HEAD else "body_timeout")
        self._refusal = RequestTimeout(why)
        self._end()

    def _end(self) -> None:
        """Say the last word, and listen to nothing more."""
        cycle = self.last_cycle()
        self._phase, self._since = _Phase.ENDING, self._connections.now
        if self.transport.is_closing():
            return
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or cycle.scope is not self.scope or self.pipeline:
                # It would come in the middle of another answer.
                self.transport.abort()
                return
            # Whoever waits for the rest of this request waits no longer, and answers to nobody.
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and cycle.scope is self.scope:
            # The request had its answer before it was here.
            self.transport.close()
            return
        if self._refusal is not None:
            self.transport.write(last_words(self._refusal))
        self.flow.resume_reading()
        self.transport.write_eof()
