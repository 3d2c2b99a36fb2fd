"""HTTP at the level of bytes, where a client library would hide what came."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS_MAX = 20.0

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-authenticate",
}


@dataclass(frozen=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    """In order, names in lower case."""
    body: bytes
    """Without the framing of chunks."""
    whole: bool
    """Whether the body came to its proper end."""

    @property
    def end_to_end(self) -> list[tuple[str, str]]:
        """The headers that a proxy passes on."""
        return [(name, value) for name, value in self.headers if name not in HOP_BY_HOP | {"set-cookie"}]

    def header(self, name: str) -> str | None:
        """Return a header's first value."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error object, which has exactly OpenAI's members."""
        document = self.json()
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        return document["error"]


class Connection:
    """A connection that a test reads from and hangs up as it likes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), SECONDS_MAX)
        self._received = bytearray()

    @property
    def received(self) -> bytes:
        """Everything received so far."""
        return bytes(self._received)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Read until the bytes have come, and return everything received so far."""
        while mark not in self._received:
            data = self.socket.recv(65536)
            assert data, f"the connection ended before {mark!r} came: {self.received!r}"
            self._received += data
        return self.received

    def read_to_end(self) -> bytes:
        """Read until the other side closes, and return everything received."""
        try:
            while data := self.socket.recv(1 << 20):
                self._received += data
        except ConnectionResetError:
            pass
        return self.received

    def hang_up(self) -> None:
        """Close the connection."""
        self.socket.close()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect, and close at the end."""
    connection = Connection(url)
    try:
        yield connection
    finally:
        connection.hang_up()


def request(
    method: str,
    target: str,
    *,
    host: str = "meter",
    key: str | None = None,
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Write a request that asks for the connection to be closed after the answer."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chat(document: object = None, **members: object) -> bytes:
    """Write the body of a chat completion."""
    messages = [{"role": "user", "content": "Hello"}]
    base = {"model": "test-model", "messages": messages} if document is None else document
    return json.dumps(base | members if isinstance(base, dict) else base).encode()


def exchange(url: str, sent: bytes) -> Answer:
    """Send a request and read the whole answer."""
    with connected(url) as connection:
        connection.send(sent)
        return parse(connection.read_to_end())


def post(
    url: str, key: str | None, body: bytes, *, path: str = "/v1/chat/completions", headers: Any = ()
) -> Answer:
    """Post a body to a route of meter's, or of the upstream's."""
    typed = [("Content-Type", "application/json"), *headers]
    return exchange(url, request("POST", path, key=key, body=body, headers=typed))


def parse(raw: bytes) -> Answer:
    """Take a response apart; informational ones before it are passed over."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split(" ")[1])
    if status < 200:
        return parse(body)
    headers = [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in lines]
    fields = dict(headers)
    if fields.get("transfer-encoding") == "chunked":
        return Answer(status, headers, *_dechunk(body))
    length = int(fields.get("content-length", len(body)))
    return Answer(status, headers, body[:length], whole=len(body) >= length)


def _dechunk(body: bytes) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    at = 0
    while (line_end := body.find(b"\r\n", at)) >= 0:
        length = int(body[at:line_end], 16)
        if length == 0:
            return b"".join(pieces), True
        start = line_end + 2
        pieces.append(body[start : start + length])
        at = start + length + 2
        if at > len(body):
            break
    return b"".join(pieces), False
