"""Requests that are answered without ASGI: what one connection's requests share, and what they must not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest

from meter.core.events import Outcome
from tests import server, wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import NO_TLS, Meter
from tests.wire import Connection

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
DOCUMENT = json.dumps({"model": "served", "choices": [], "usage": USAGE}).encode()
PATH = "/v1/chat/completions"
BODY = wire.chat()


def held_bytes(meter: Meter) -> float:
    """Return how much the server holds of requests."""
    headers = {"authorization": f"Bearer {meter.admin_token}"}
    page = httpx.get(f"{meter.control_url}/metrics", headers=headers, trust_env=False, verify=NO_TLS).text
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith("meter_held_bytes "))


@contextmanager
def begun(meter: Meter, key: str, body: bytes, sent: int) -> Iterator[Connection]:
    """Send a request but for the end of its body."""
    whole = wire.request("POST", PATH, key=key, body=body)
    with wire.connected(meter.url) as connection:
        connection.send(whole[: len(whole) - len(body) + sent])
        yield connection


@contextmanager
def kept(meter: Meter) -> Iterator[HTTPConnection]:
    """Connect once for several requests."""
    parts = urlsplit(meter.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=wire.SECONDS_MAX)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    connection: HTTPConnection, key: str | None, body: bytes = BODY, **headers: str
) -> tuple[int, bytes, object]:
    """Ask on a connection that stays open; returns status, body, and what tells connections apart."""
    credential = {} if key is None else {"authorization": f"Bearer {key}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", PATH, body, credential | named)
    answer = connection.getresponse()
    return answer.status, answer.read(), connection.sock.getsockname()


def test_a_connection_serves_whoever_sends_the_key(upstream: FakeUpstream, meter: Meter) -> None:
    """Keys may change from request to request; each counts for its own, and a wrong one is refused."""
    upstream.answer(*[[response(DOCUMENT)]] * 4)
    first, second = meter.new_key(known=True), meter.new_key(known=True)
    wrong = first[:-1] + ("0" if first[-1] != "0" else "1")

    with kept(meter) as connection:
        answers = [ask(connection, key) for key in (first, first, wrong, second, None, second)]

    assert [status for status, *_ in answers] == [200, 200, 401, 200, 401, 200]
    assert len({port for *_, port in answers}) == 1
    assert [len(meter.events(key, 2)) for key in (first, second)] == [2, 2]


def test_a_request_is_forwarded_with_its_own_headers(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """What differs from the request before on the connection goes upstream as it came, the length too."""
    upstream.answer(*[[response(DOCUMENT)]] * 4)
    headers = [{"x_trace": "a"}, {"x_trace": "a"}, {"x_trace": "b"}, {}]

    with kept(meter) as connection:
        for number, some in enumerate(headers):
            assert ask(connection, key, wire.chat(user="u" * number), **some)[0] == httpx.codes.OK

    assert [request.header("x-trace") for request in upstream.received] == ["a", "a", "b", None]
    lengths = [request.header("content-length") for request in upstream.received]
    assert lengths == [str(len(request.body)) for request in upstream.received]
    assert len(set(lengths)) == len(lengths)


def test_tags_are_those_of_the_request(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Tags change from request to request."""
    upstream.answer(*[[response(DOCUMENT)]] * 3)

    with kept(meter) as connection:
        for tag in ("red", "red", "blue"):
            ask(connection, key, x_meter_tags=tag)

    assert [event.tags for event in meter.events(key, 3)] == [("red",), ("red",), ("blue",)]


@pytest.mark.parametrize("sent", [0, 1, 40])
def test_a_body_may_come_in_pieces(sent: int, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The rest of a body comes later, and the request is answered as any other."""
    upstream.answer([response(DOCUMENT)])
    body = wire.chat()

    with begun(meter, key, body, sent) as connection:
        server.until(lambda: held_bytes(meter) >= sent, "what has come to be held")
        connection.send(body[sent:])
        answer = wire.parse(connection.read_to_end())

    assert answer.body == DOCUMENT
    assert meter.event(key).outcome is Outcome.OK
    assert upstream.received[0].body == body


def test_whoever_leaves_within_a_body_leaves_nothing(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """What was held for the request is given back, and nothing of it goes upstream or is charged."""
    body, sent = wire.chat(user="u" * 10_000), 5000

    with begun(meter, key, body, sent):
        server.until(lambda: held_bytes(meter) >= sent, "what has come to be held")
    server.until(lambda: held_bytes(meter) == 0, "it to be given back")

    assert upstream.received == []
    assert meter.events(key, 0) == []


def test_a_refused_body_leaves_the_connection_usable(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A refusal is an answer like others, and the next request of the connection is served."""
    upstream.answer([response(DOCUMENT)])

    with kept(meter) as connection:
        status, refusal, at_first = ask(connection, key, wire.chat(model=7))
        answer = ask(connection, key)

    assert (status, json.loads(refusal)["error"]["param"]) == (400, "model")
    assert answer == (200, DOCUMENT, at_first)
    assert len(meter.events(key)) == 1


REQUEST = wire.request("POST", PATH, key="KEY", body=BODY).replace(b"Connection: close\r\n", b"")
LONGER = wire.chat(user="somebody")
NEXT = wire.request("POST", PATH, key="KEY", body=LONGER).replace(b"Connection: close\r\n", b"")
HEAD_BYTES = NEXT.index(b"\r\n\r\n") + 4
# In the request line, in the digits of the length, at the ends of the head, and in the body.
CUTS = [1, 10, HEAD_BYTES - 5, HEAD_BYTES - 2, HEAD_BYTES, HEAD_BYTES + 1, len(NEXT) - 1]


def exchange(meter: Meter, key: str, *pieces: bytes) -> list[bytes]:
    """Send a request, and then more in pieces; returns all answers."""
    with wire.connected(meter.url) as connection:
        connection.send(REQUEST.replace(b"KEY", key.encode()))
        connection.read_until(DOCUMENT)
        for piece in pieces:
            connection.send(piece.replace(b"KEY", key.encode()))
            # So that the pieces come one by one, each is followed by a look at another connection.
            assert ready(meter)
        end = wire.request("GET", "/health/live")
        connection.send(end)
        return connection.read_to_end().split(b"HTTP/1.1 200 OK\r\n")[1:]


def ready(meter: Meter) -> bool:
    """Say whether the server answers."""
    return wire.exchange(meter.url, wire.request("GET", "/health/live")).status == httpx.codes.OK


@pytest.mark.parametrize("cut", CUTS)
def test_the_next_request_may_come_cut(cut: int, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Wherever the bytes of a head that is known, and of its body, are cut, the request is the same."""
    upstream.answer(*[[response(DOCUMENT)]] * 2)
    text = NEXT.replace(b"KEY", key.encode())
    at = cut if cut < HEAD_BYTES - 20 else cut + len(key) - 3

    answers = exchange(meter, key, text[:at], text[at:])

    assert [DOCUMENT in answer for answer in answers] == [True, True, False]
    assert [request.body for request in upstream.received] == [BODY, LONGER]


def test_requests_may_follow_without_waiting(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """What comes behind a request whose head is known is the next one, and is answered after it."""
    upstream.answer(*[[response(DOCUMENT)]] * 4)

    answers = exchange(meter, key, NEXT + REQUEST + NEXT)

    assert [DOCUMENT in answer for answer in answers] == [True] * 4 + [False]
    assert [request.body for request in upstream.received] == [BODY, LONGER, BODY, LONGER]


def test_what_follows_a_known_head_is_looked_at(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A second length, or anything else that is new in a head, makes it another head."""
    upstream.answer([response(DOCUMENT)])
    twice = NEXT.replace(b"Content-Length", b"Content-Length: 1\r\nContent-Length")

    answers = exchange(meter, key, twice)

    assert [DOCUMENT in answer for answer in answers] == [True]
    assert len(upstream.received) == 1
