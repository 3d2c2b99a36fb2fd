"""Requests written by hand, sent over raw sockets, and every answer that comes back."""

import socket
from collections.abc import Iterator

from tests import wire

BODY = b'{"model":"test-model","messages":[]}'
# What a smuggler wants to be taken for a request of its own. It has no credential: meter would answer 401.
SMUGGLED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Smuggled: yes\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)


def request(
    key: str,
    *lines: bytes,
    start: bytes = b"POST /v1/chat/completions HTTP/1.1",
    host: bytes = b"Host: meter\r\n",
    closes: bool = True,
) -> bytes:
    """Write the head of a request with a good key; whatever else is in it is the caller's."""
    head = start + b"\r\n" + host + b"Authorization: Bearer " + key.encode() + b"\r\n"
    head += b"Content-Type: application/json\r\n" + (b"Connection: close\r\n" if closes else b"")
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def length(body: bytes = BODY) -> bytes:
    """Write the header that says how long a body is."""
    return b"Content-Length: %d" % len(body)


def chunked(*pieces: bytes) -> bytes:
    """Write a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def send(url: str, data: bytes, *, ends: bool = False) -> list[wire.Answer]:
    """Send bytes and read all answers until meter closes; `ends` says that no more will ever come."""
    with wire.connected(url) as connection:
        try:
            connection.send(data)
            if ends:
                connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It may close before it has read everything.
        return list(answers(connection.read_to_end()))


def statuses(found: list[wire.Answer]) -> list[int]:
    """Return the statuses of answers."""
    return [answer.status for answer in found]


def answers(raw: bytes) -> Iterator[wire.Answer]:
    """Take answers apart that follow each other; each of them has a length, or is the last."""
    while b"\r\n\r\n" in raw:
        answer = wire.parse(raw)
        yield answer
        head, _, rest = raw.partition(b"\r\n\r\n")
        told = answer.header("content-length")
        raw = rest[int(told) :] if told is not None else b""
        if not head.startswith(b"HTTP/1.1 "):
            return
