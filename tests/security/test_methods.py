"""Methods that are no row of the table, and protocols that a client would like to go on with."""

import socket

import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, length, request
from tests.server import Meter

OK = [response(b'{"choices":[]}')]
CHAT = b"/v1/chat/completions"
REFUSED = [
    *((method, CHAT, 405) for method in (b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"PATCH", b"DELETE")),
    *((method, b"/v1/models", 405) for method in (b"HEAD", b"OPTIONS", b"TRACE", b"POST", b"DELETE")),
    *((method, b"/v1/models/m", 405) for method in (b"HEAD", b"DELETE", b"POST")),
    *((method, CHAT, 405) for method in (b"PROPFIND", b"COPY", b"LOCK", b"PURGE", b"LINK", b"SEARCH")),
    (b"OPTIONS", b"*", 404),
    (b"CONNECT", b"evil.example:443", 404),
    (b"CONNECT", b"127.0.0.1:8081", 404),
    (b"CONNECT", CHAT, 405),
]


@pytest.mark.parametrize(("method", "target", "status"), REFUSED)
def test_a_method_is_a_routes_or_nothing(
    method: bytes, target: bytes, status: int, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """Whatever is no method of a route is refused, and echoes nothing of the request."""
    upstream.answer(OK)

    with wire.connected(meter.url) as connection:
        connection.send(request(holder, b"X-Echo: canary", start=method + b" " + target + b" HTTP/1.1"))
        got = connection.read_to_end()

    assert wire.parse(got).status in {status, 400}
    assert b"canary" not in got
    assert holder.encode() not in got
    assert upstream.received == []


OVERRIDES = [
    b"X-HTTP-Method-Override: DELETE",
    b"X-HTTP-Method: PUT",
    b"X-Method-Override: GET",
    b"X-Original-URL: /api/v1/keys",
    b"X-Rewrite-URL: /metrics",
    b"X-Forwarded-Prefix: /admin",
    b"X-Forwarded-Path: /metrics",
]


@pytest.mark.parametrize("line", OVERRIDES)
def test_no_header_is_a_method_or_a_path(
    line: bytes, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """A request is what its first line says, on both listeners."""
    upstream.answer(OK)
    local = b"Host: localhost\r\n"

    found = raw.send(meter.url, request(holder, line, length()) + BODY)
    hidden = raw.send(meter.url, request(holder, line, start=b"GET / HTTP/1.1"))
    control = raw.send(
        meter.control_url,
        request(meter.admin_token, line, start=b"GET /api/v1/teams HTTP/1.1", host=local),
    )

    (received,) = upstream.received
    assert raw.statuses(found + hidden + control) == [200, 404, 200]
    assert (received.method, received.target) == ("POST", CHAT.decode())


UPGRADES: dict[str, tuple[bytes, ...]] = {
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ),
    "h2c, alone": (b"Upgrade: h2c",),
    "websocket": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ),
    "websocket with odd bytes": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Sec-WebSocket-Protocol: \xff\xfe\x80chat",
    ),
    "tls": (b"Connection: Upgrade", b"Upgrade: TLS/1.2"),
    "anything": (b"Connection: upgrade", b"Upgrade: \x80\xff"),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_nothing_is_upgraded(name: str, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A request for another protocol is an ordinary request, and no worker dies of it."""
    upstream.answer(OK)
    lines = (*UPGRADES[name], length())

    posted = raw.send(meter.url, request(holder, *lines, closes=False) + BODY, ends=True)
    asked = raw.send(
        meter.url, request(holder, *UPGRADES[name], start=b"GET /v1/models HTTP/1.1", closes=False), ends=True
    )
    control = raw.send(
        meter.control_url,
        request(
            meter.admin_token,
            *UPGRADES[name],
            start=b"GET /api/v1/teams HTTP/1.1",
            host=b"Host: localhost\r\n",
            closes=False,
        ),
        ends=True,
    )

    assert 101 not in raw.statuses(posted + asked + control)
    assert raw.statuses(posted) == [200]
    for received in upstream.received:
        assert received.header("upgrade") is None
        assert received.header("http2-settings") is None
    assert meter.process.poll() is None


def test_a_thousand_offers_at_once(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """Requests that offer another protocol keep their bodies and their order, however many came at once."""
    upstream.answer(OK)
    offer = (b"Connection: Upgrade", b"Upgrade: h2c", length())
    several = request(holder, *offer, closes=False) + BODY
    last = request(holder, *offer) + BODY
    many = request("", b"Connection: Upgrade", b"Upgrade: h2c", start=b"GET / HTTP/1.1", closes=False) * 1000

    served = raw.send(meter.url, several * 5 + last)
    refused = raw.send(meter.url, many + request("", start=b"GET / HTTP/1.1"))

    assert raw.statuses(served) == [200] * 6
    assert [received.body for received in upstream.received] == [BODY] * 6
    assert raw.statuses(refused) == [404] * 1001


def test_a_head_in_pieces_keeps_its_body(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """An offer is passed over wherever reads cut the request."""
    upstream.answer(OK)
    whole = request(holder, b"Connection: upgrade", b"Upgrade: h2c", length()) + BODY
    head = whole.index(b"\r\n\r\n") + 4

    for cut in (head - 4, head - 2, head - 1, head, head + 1, head + 10):
        with wire.connected(meter.url) as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(whole[:cut])
            connection.send(whole[cut:])
            assert wire.parse(connection.read_to_end()).status == 200

    assert [received.body for received in upstream.received] == [BODY] * 6
