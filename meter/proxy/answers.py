"""Answers of meter's own: through ASGI, and where a request never got so far, as bytes."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

from meter.core.errors import MeterError
from meter.proxy.outlet import Head

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


async def respond(send: Send, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
    """Send a whole response of JSON."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status, "headers": [_JSON, length, *raw]}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def refusal_head(refusal: MeterError, body_bytes: int) -> Head:
    """Make the head of a refusal."""
    raw = [(name.encode(), value.encode()) for name, value in refusal.headers]
    return Head(refusal.status, [_JSON, (b"content-length", b"%d" % body_bytes), *raw])


def last_words(refusal: MeterError) -> bytes:
    """Write a refusal as the last response of a connection."""
    body = refusal.body()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= dict(refusal.headers) | {"connection": "close"}
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
