"""Headers: how many bytes, and how long they may take (T27, F64)."""

import time

import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.security.conftest import HEADER_BYTES_MAX
from tests.security.listeners import LISTENERS, metric, url
from tests.server import Meter, until

OK = response(b'{"model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}')


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("ended", [True, False], ids=["as a whole", "without end"])
def test_headers_over_the_limit_get_431(bounded: Meter, listener: str, ended: bool) -> None:
    """Too large a header is refused with its reason, whether or not its end is there."""
    filler = [("X-Filler", "a" * 100)] * (HEADER_BYTES_MAX // 100)
    sent = wire.request("GET", "/v1/models", headers=filler)

    answer = wire.exchange(url(bounded, listener), sent if ended else sent[:-2])

    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    assert (answer.whole, answer.header("connection")) == (True, "close")


@pytest.mark.parametrize("target", ["/" + "a" * HEADER_BYTES_MAX, "/v1/models?" + "a" * HEADER_BYTES_MAX])
def test_a_request_line_over_the_limit_gets_431(bounded: Meter, target: str) -> None:
    """The target counts too."""
    assert wire.exchange(bounded.url, wire.request("GET", target)).status == 431


def test_headers_below_the_limit_pass_with_a_large_body(bounded: Meter, upstream: FakeUpstream) -> None:
    """What counts is the headers alone, also where a large body comes along with them."""
    upstream.answer([OK])
    key, body = bounded.new_key(), wire.chat(user="u" * 10 * HEADER_BYTES_MAX)
    filler = [("X-Filler", "a" * 1000)] * 7

    answer = wire.post(bounded.url, key, body, headers=filler)

    assert answer.status == 200


def test_headers_of_a_pipelined_request_are_bounded_too(bounded: Meter) -> None:
    """A request behind another one has its headers counted anew, and by themselves."""
    first = wire.request("GET", "/health/live").replace(b"Connection: close\r\n", b"")
    large = wire.request("GET", "/health/live", headers=[("X-Filler", "a" * HEADER_BYTES_MAX)])

    with wire.connected(bounded.url) as connection:
        connection.send(first * 3 + large)
        received = connection.read_to_end()

    # The refusal must not come in the middle of an answer; so there may be none.
    assert received.count(b"HTTP/1.1 200") <= 3
    assert received.replace(b"HTTP/1.1 200", b"").count(b"HTTP/1.1") <= 1
    assert b'{"status":"live"}' * 4 not in received


def test_endless_trailers_are_refused(bounded: Meter, upstream: FakeUpstream) -> None:
    """What comes behind a body is headers too."""
    head = wire.request(
        "POST", "/v1/chat/completions", key=bounded.new_key(), headers=[("Transfer-Encoding", "chunked")]
    )
    body = wire.chat()

    with wire.connected(bounded.url) as connection:
        connection.send(head + b"%x\r\n%s\r\n0\r\n" % (len(body), body))
        # More than one read brings along with the body.
        connection.send(b"X-Trailer: a\r\n" * 80_000)
        answer = wire.parse(connection.read_to_end())

    assert answer.status == 431
    assert upstream.received == []


@pytest.mark.parametrize("listener", LISTENERS)
def test_slow_headers_get_408(bounded: Meter, listener: str) -> None:
    """Who sends a byte now and then has as long as who sends none."""
    began = time.monotonic()
    with wire.connected(url(bounded, listener)) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        connection.socket.settimeout(0.2)
        received = b""
        while not received:
            connection.send(b"a")
            try:
                received = connection.socket.recv(65536)
            except TimeoutError:
                assert time.monotonic() - began < wire.SECONDS_MAX
    answer = wire.parse(received)

    assert (answer.status, answer.error["code"]) == (408, "request_timeout")


def test_connections_that_ask_for_nothing_are_closed(bounded: Meter) -> None:
    """A connection without a request ends without an answer; one that was used, a while after its answer."""
    with wire.connected(bounded.url) as unused, wire.connected(bounded.url) as kept:
        kept.send(wire.request("GET", "/health/live").replace(b"Connection: close\r\n", b""))

        assert unused.read_to_end() == b""
        assert wire.parse(kept.read_to_end()).status == 200


def test_what_was_cut_off_is_counted(bounded: Meter) -> None:
    """Operators see how many connections were cut off, and why."""
    line = 'meter_connections_cut_total{reason="header_bytes"}'
    before = metric(bounded, line)

    wire.exchange(bounded.url, wire.request("GET", "/" + "a" * HEADER_BYTES_MAX))

    until(lambda: metric(bounded, line) == before + 1, "the count")
