"""Clients that stop reading: they are cut off, what they asked for is settled, memory stays (T28, F63)."""

import socket

from meter.core.events import Outcome
from tests import wire
from tests.fake_upstream import FakeUpstream, event, stream
from tests.security.listeners import metric
from tests.server import Meter, until

PIECE = event({"choices": [{"index": 0, "delta": {"content": "a" * 60_000}}]})
PIECES = 400


def test_a_client_that_stops_reading_is_cut_off(bounded: Meter, upstream: FakeUpstream) -> None:
    """It is hung up on, its upstream is closed after the grace, and its event has what was emitted."""
    key, line = bounded.new_key(), 'meter_connections_cut_total{reason="client_stalled"}'
    upstream.answer(stream(*[PIECE] * PIECES))
    before = metric(bounded, line)
    body = wire.chat(stream=True, stream_options={"include_usage": True})

    with wire.connected(bounded.url) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        until(lambda: metric(bounded, line) > before, "the cut")
        charged = bounded.event(key)

    assert charged.outcome is Outcome.CLIENT_CLOSED
    assert charged.completion_tokens > 0
    assert metric(bounded, "meter_stalled_connections") == 0
