"""The upstream of the measurements: bytes that were written beforehand, so that it is not what is measured.

python -m benchmarks.upstream PORT

A request whose body asks for a stream gets `EVENTS` events at once, and its usage before the end only if it
asks for that, as with OpenAI. With the header `x-pace-ms` it gets `PACED_EVENTS` events, or as many as
`x-events` says, one of them every so often, and each says when it was sent. `GET /count` says how many other
requests came.

It is one loop over sockets: a task, a timer and a transport for each stream cost more than many a proxy.
"""

import re
import select
import socket
import sys
import time
from collections.abc import Iterable

EVENTS = 200
PACED_EVENTS = 50
BACKLOG = 4096
READ_BYTES = 1 << 16

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PACE = re.compile(rb"\r\nx-pace-ms: *(\d+)", re.IGNORECASE)
_EVENTS = re.compile(rb"\r\nx-events: *(\d+)", re.IGNORECASE)

EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"bench",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":200,"total_tokens":214,'
    b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
)
PROMPT_TOKENS, COMPLETION_TOKENS = 14, 200
BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1790000000,"model":"bench","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"A meter stands between a caller and a model, '
    b'passes every byte on as it is, and writes down what was used."},"logprobs":null,"finish_reason":"stop"}'
    b'],"usage":{"prompt_tokens":14,"completion_tokens":32,"total_tokens":46,"prompt_tokens_details":'
    b'{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
    b'"audio_tokens":0}},"system_fingerprint":null,"service_tier":"default"}'
)
# In the place of the word: microseconds of the clock that all processes of a machine share.
STAMP = re.compile(rb'"content":"(\d{16})"')
_STAMPED = EVENT.replace(b'" word"', b'"%016d"')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\ncache-control: no-cache\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunks(events: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


_DONE = b"data: [DONE]\n\n"
_JSON = _whole(BODY)
_PACED = b"%x\r\n%b\r\n" % (len(_STAMPED % 0), _STAMPED)
_END = {wanted: _chunks([USAGE] * wanted + [_DONE]) + b"0\r\n\r\n" for wanted in (False, True)}
_BURST = {wanted: _STREAM_HEAD + _chunks([EVENT] * EVENTS) + end for wanted, end in _END.items()}


def stamp() -> int:
    """Return the microseconds that stamps are made of."""
    return time.monotonic_ns() // 1000


class _Connection:
    """One connection; requests on it come one after the other."""

    def __init__(self, taken: socket.socket) -> None:
        self.socket = taken
        self.received = b""
        self.unsent = b""
        self.left = 0
        """How many events of a paced stream are to come."""
        self.pace_ms = 0
        self.end = b""


class _Upstream:
    """All connections, and what is due when."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._due: dict[int, list[_Connection]] = {}
        """By the millisecond at which they are to get their next event."""
        self._done_ms = time.monotonic_ns() // 1_000_000
        self._requests = 0

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            for number, what in self._poll.poll(0.001 if self._due else None):
                if number == self._listener.fileno():
                    self._accept()
                elif what & select.EPOLLOUT:
                    self._send(self._connections[number], b"")
                else:
                    self._receive(self._connections[number])
            self._go_on()

    def _accept(self) -> None:
        taken, _ = self._listener.accept()
        taken.settimeout(0)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[taken.fileno()] = _Connection(taken)
        self._poll.register(taken.fileno(), select.EPOLLIN)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        connection.received += data
        head, mark, body = connection.received.partition(b"\r\n\r\n")
        if not mark:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) >= int(length[1]):
            connection.received = b""
            self._answer(connection, head, body)

    def _answer(self, connection: _Connection, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /count "):
            self._send(connection, _whole(b"%d" % self._requests))
            return
        self._requests += 1
        if b'"stream":true' not in body:
            self._send(connection, _JSON)
            return
        wanted = b'"include_usage":true' in body
        pace = _PACE.search(head)
        if pace is None:
            self._send(connection, _BURST[wanted])
            return
        events = _EVENTS.search(head)
        connection.left = int(events[1]) if events else PACED_EVENTS
        connection.pace_ms = int(pace[1])
        connection.end = _END[wanted]
        self._send(connection, _STREAM_HEAD)
        now_ms = time.monotonic_ns() // 1_000_000
        if not self._due:
            # Nobody has looked at the clock while nothing was due.
            self._done_ms = now_ms
        self._due.setdefault(now_ms + 1, []).append(connection)

    def _go_on(self) -> None:
        """Send what is due; what gets due meanwhile has its turn when the sockets have had theirs."""
        now_ms = time.monotonic_ns() // 1_000_000
        while self._due and self._done_ms < now_ms:
            self._done_ms += 1
            for connection in self._due.pop(self._done_ms, ()):
                if not connection.left:
                    self._send(connection, connection.end)
                    continue
                connection.left -= 1
                self._send(connection, _PACED % stamp())
                self._due.setdefault(self._done_ms + connection.pace_ms, []).append(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        was_stuck = bool(connection.unsent)
        data = connection.unsent + data
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        connection.unsent = data[sent:]
        if bool(connection.unsent) != was_stuck:
            wanted = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
            self._poll.modify(connection.socket.fileno(), wanted)

    def _drop(self, connection: _Connection) -> None:
        number = connection.socket.fileno()
        if self._connections.pop(number, None) is not None:
            self._poll.unregister(number)
            connection.socket.close()


def serve(port: int) -> None:
    """Serve a port of this machine's for ever."""
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as listener:
        listener.settimeout(0)
        _Upstream(listener).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
