"""A request and its answer where no ASGI stands between a connection and the relay.

To the connection it looks like uvicorn's own `RequestResponseCycle`, and to an attempt it is the outlet. What
it writes goes out at once.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from meter.core.errors import MeterError
from meter.proxy.answers import refusal_head
from meter.proxy.opening import CONTENT_LENGTH
from meter.proxy.outlet import Head

_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_END = b"0\r\n\r\n"
_FAULT = b"Internal Server Error"
_FAULT_HEAD = Head(500, [(b"content-type", b"text/plain; charset=utf-8"), (CONTENT_LENGTH, b"21")])


class Client:
    """What the client of a request does beside sending it; whoever wants to know is called."""

    _closed = _left = False
    _on_closing: Callable[[], None] | None = None
    _on_leaving: Callable[[], None] | None = None

    def watch(self, *, closing: Callable[[], None] | None, leaving: Callable[[], None] | None) -> None:
        """Call as soon as it has closed its sending side, and when its connection is gone, be that now."""
        self._on_closing, self._on_leaving = closing, leaving
        if self._closed and closing is not None:
            closing()
        if self._left and leaving is not None:
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


class Line(Protocol):
    """The connection, as a cycle needs it."""

    transport: asyncio.Transport
    flow: FlowControl

    def on_response_complete(self) -> None:
        """Go on to the next request."""


class _NobodyWaits:
    def set(self) -> None:
        """Wake those who wait for messages of ASGI, who are none."""


class Cycle(Client):
    """One request on its way in, then its answer on its way out."""

    message_event = _NobodyWaits()

    # What every request begins with stands here once.
    body = b""
    more_body = True
    disconnected = False
    response_started = False
    response_complete = False
    _ended = False
    _chunked = False
    _left_bytes = 0

    def __init__(self, line: Line, scope: object, *, keep_alive: bool) -> None:
        self._line: Line | None = line
        self._transport = line.transport
        self._flow = line.flow
        self.scope = scope
        """What uvicorn tells a connection's requests apart by."""
        self.keep_alive = keep_alive

    @property
    def full(self) -> bool:
        """Whether the client takes in less than is given."""
        return self._flow.write_paused and not self._ended

    @property
    def empty(self) -> bool:
        """Say that nothing waits here: what is given is written."""
        return True

    def begin(self, head: Head) -> None:
        """Write the head."""
        self._write(self._opened(head))

    def give(self, chunk: bytes) -> None:
        """Write a chunk."""
        framed = self._framed(chunk)
        if not self._ended and not self.disconnected:
            self._transport.write(framed)

    def answer(self, head: Head, body: bytes) -> None:
        """Write a whole answer, by one write."""
        opened = self._opened(head)
        framed = self._framed(body) if body else b""
        self._finish(opened + framed)

    def refuse(self, refusal: MeterError) -> None:
        """Write a refusal."""
        body = refusal.body()
        self.answer(refusal_head(refusal, len(body)), body)

    def end(self, last: bytes = b"", *, whole: bool) -> None:
        """Write the last chunk and the end; an answer that is cut is not ended but broken off."""
        if self._ended:
            return
        framed = self._framed(last) if last else b""
        if whole:
            self._finish(framed)
        else:
            self._write(framed)
            self._ended = True
            self._line = None
            self._transport.close()

    def fail(self) -> None:
        """Say that something went wrong here, if that can be said yet."""
        if self.response_started:
            self.end(whole=False)
        else:
            self.keep_alive = False
            self.answer(_FAULT_HEAD, _FAULT)

    def give_up(self) -> None:
        """Break off, because nobody reads on."""
        self.end(whole=False)

    async def room(self) -> None:
        """Wait until the client has taken in what was written, or is gone."""
        await self._flow.drain()

    def _write(self, data: bytes) -> None:
        if data and not self._ended and not self.disconnected:
            self._transport.write(data)

    def _opened(self, head: Head) -> bytes:
        self.response_started = True
        lines = [STATUS_LINE[head.status]]
        self._chunked = head.status not in _WITHOUT_BODY
        for name, value in head.headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == CONTENT_LENGTH:
                self._chunked, self._left_bytes = False, int(value)
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def _framed(self, chunk: bytes) -> bytes:
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk)
        self._left_bytes -= len(chunk)
        return chunk

    def _finish(self, data: bytes) -> None:
        if self._ended:
            return
        if self._left_bytes:
            # There was more, or less, than was announced.
            self.keep_alive = False
        self._write(data + _END if self._chunked else data)
        self._ended = self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        # Connection and request know each other no longer than they have to do with each other.
        line, self._line = self._line, None
        if line is not None:
            line.on_response_complete()
