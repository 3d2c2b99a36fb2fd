"""Bodies: how long a client may be silent within one, and how long the whole may take (T27, F64, F66)."""

import time

import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.security.listeners import LISTENERS, url
from tests.server import Meter

PACE_SECONDS = 0.3


def head(meter: Meter, listener: str) -> bytes:
    """Begin a request with a body that never comes."""
    path, key = (
        ("/v1/chat/completions", meter.new_key())
        if listener == "data"
        else ("/api/v1/keys", meter.admin_token)
    )
    host = url(meter, listener).removeprefix("http://")
    typed = [("Content-Type", "application/json"), ("Content-Length", "1000")]
    return wire.request("POST", path, host=host, key=key, headers=typed)


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_silent_body_gets_408(bounded: Meter, upstream: FakeUpstream, listener: str) -> None:
    """Silence within a body ends the request; nothing went upstream."""
    sent = head(bounded, listener) + b'{"model": "m"'

    with wire.connected(url(bounded, listener)) as connection:
        connection.send(sent)
        answer = wire.parse(connection.read_to_end())

    assert (answer.status, answer.error["code"], answer.header("connection")) == (
        408,
        "request_timeout",
        "close",
    )
    assert upstream.received == []


@pytest.mark.long
def test_a_trickling_body_gets_408_in_the_end(bounded: Meter, upstream: FakeUpstream) -> None:
    """A byte now and then is no silence, but the whole has its time too."""
    sent = head(bounded, "data")
    began = time.monotonic()

    with wire.connected(bounded.url) as connection:
        connection.send(sent)
        connection.socket.settimeout(PACE_SECONDS)
        received = b""
        while not received:
            connection.send(b" ")
            try:
                received = connection.socket.recv(65536)
            except TimeoutError:
                assert time.monotonic() - began < wire.SECONDS_MAX

    assert wire.parse(received).status == 408
    assert time.monotonic() - began > 3
    assert upstream.received == []


def test_a_slow_body_within_its_time_passes(bounded: Meter, upstream: FakeUpstream) -> None:
    """Slow is not too slow."""
    upstream.answer([response(b'{"model": "m", "choices": []}')])
    sent = wire.request("POST", "/v1/chat/completions", key=bounded.new_key(), body=wire.chat())
    with wire.connected(bounded.url) as connection:
        connection.send(sent[:-4])
        for byte in sent[-4:]:
            # The client's own pace.
            time.sleep(PACE_SECONDS)
            connection.send(bytes([byte]))

        assert wire.parse(connection.read_to_end()).status == 200


def test_a_body_without_a_key_is_not_waited_for(bounded: Meter) -> None:
    """Who was refused before its body came is closed on when the body does not come."""
    sent = head(bounded, "data").replace(b"Authorization", b"X-Other").replace(b"Connection: close\r\n", b"")
    with wire.connected(bounded.url) as connection:
        connection.send(sent)
        answer = wire.parse(connection.read_to_end())

    assert (answer.status, answer.whole) == (401, True)
