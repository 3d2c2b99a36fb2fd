"""A client that closes its sending side and reads on gets its whole answer; one that is gone is noticed."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meter.core.events import Outcome, UsageSource
from tests import server, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, Step, event, response, stream
from tests.server import Meter
from tests.wire import Connection

GRACE_SECONDS = 0.5
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
PIECE = event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
END = event({"choices": [], "usage": USAGE}) + DONE
DOCUMENT = json.dumps({"model": "served", "choices": [], "usage": USAGE}).encode()


def asking(key: str, **members: object) -> bytes:
    """Write a request for a stream with its usage."""
    body = wire.chat(stream=True, stream_options={"include_usage": True}, **members)
    return wire.request("POST", "/v1/chat/completions", key=key, body=body)


@contextmanager
def half_closed(meter: Meter, sent: bytes) -> Iterator[Connection]:
    """Send something, and close the sending side."""
    with wire.connected(meter.url) as connection:
        connection.send(sent)
        connection.socket.shutdown(socket.SHUT_WR)
        yield connection


@pytest.fixture(scope="module")
def impatient(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter with a short grace."""
    data_dir = tmp_path_factory.mktemp("impatient") / "data"
    url = upstream_server.url
    with server.running(data_dir, upstream_url=url, hangup_grace_seconds=GRACE_SECONDS) as running:
        yield running


def answers() -> dict[str, list[Step]]:
    """Return answers of every framing."""
    return {"stream": stream(PIECE, PIECE, END), "document": [response(DOCUMENT)]}


@pytest.mark.parametrize("kind", answers())
def test_the_whole_answer_comes(kind: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Whatever its framing, an answer comes to its end, then the connection closes; its usage is charged."""
    gate = Gate()
    upstream.answer([gate, *answers()[kind]])

    with half_closed(meter, asking(key)) as connection:
        assert gate.reached.wait(wire.SECONDS_MAX)
        gate.open()
        answer = wire.parse(connection.read_to_end())

    (received,) = upstream.received
    charged = meter.event(key)
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == wire.parse(bytes(received.sent)).body
    assert (charged.outcome, charged.usage_source) == (Outcome.CLIENT_CLOSED, UsageSource.REPORTED)
    assert (charged.prompt_tokens, charged.completion_tokens) == (9, 4)


def test_a_client_may_close_its_side_within_the_answer(
    upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """The rest comes as well, on a connection that would have been kept otherwise."""
    gate = Gate()
    upstream.answer(stream(PIECE, gate, PIECE, END))

    with wire.connected(meter.url) as connection:
        connection.send(asking(key).replace(b"Connection: close\r\n", b""))
        connection.read_until(PIECE)
        connection.socket.shutdown(socket.SHUT_WR)
        gate.open()
        answer = wire.parse(connection.read_to_end())

    assert (answer.body, answer.whole) == (PIECE * 2 + END, True)
    assert answer.header("connection") is None
    assert meter.event(key).usage_source is UsageSource.REPORTED


def test_every_delivery_begins_the_grace_anew(upstream: FakeUpstream, impatient: Meter) -> None:
    """A stream that takes much longer than the grace is read to its end, as long as something comes."""
    key = impatient.new_key()
    gates = [Gate() for _ in range(8)]
    upstream.answer(stream(*(step for gate in gates for step in (gate, PIECE)), END))
    began = time.monotonic()

    with half_closed(impatient, asking(key)) as connection:
        for gate in gates:
            assert gate.reached.wait(wire.SECONDS_MAX)
            # The upstream's own pace: less than the grace, and all of them more.
            time.sleep(GRACE_SECONDS / 3)
            gate.open()
        answer = wire.parse(connection.read_to_end())

    assert time.monotonic() - began > 2 * GRACE_SECONDS
    assert (answer.body, answer.whole) == (PIECE * 8 + END, True)
    assert impatient.event(key).usage_source is UsageSource.REPORTED


def test_an_upstream_that_is_silent_for_longer_than_the_grace(
    upstream: FakeUpstream, impatient: Meter
) -> None:
    """Then the client counts as gone: its answer is cut, and the upstream is hung up on."""
    key = impatient.new_key()
    never = Gate()
    upstream.answer(stream(PIECE, never))

    with half_closed(impatient, asking(key)) as connection:
        answer = wire.parse(connection.read_to_end())

    charged = impatient.event(key)
    assert upstream.received[0].hung_up.wait(wire.SECONDS_MAX)
    assert (answer.body, answer.whole) == (PIECE, False)
    assert (charged.outcome, charged.usage_source) == (Outcome.CLIENT_CLOSED, UsageSource.ESTIMATED)
    assert charged.completion_tokens >= 1
    never.open()


def test_without_grace_a_closed_side_is_the_end(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Who wants no token paid for a client that may be gone sets no grace, and gets what that means."""
    never = Gate()
    upstream.answer(stream(PIECE, never))

    with server.running(tmp_path / "data", upstream_url=upstream.url, hangup_grace_seconds=0) as meter:
        with wire.connected(meter.url) as connection:
            connection.send(asking(meter.first_key))
            connection.read_until(PIECE)
            connection.socket.shutdown(socket.SHUT_WR)
            answer = wire.parse(connection.read_to_end())
        charged = meter.event(meter.first_key)

    assert not answer.whole
    assert charged.outcome is Outcome.CLIENT_CLOSED
    assert upstream.received[0].hung_up.wait(wire.SECONDS_MAX)
    never.open()


def test_a_client_that_is_gone_is_noticed_by_what_it_is_given(
    upstream: FakeUpstream, impatient: Meter
) -> None:
    """A stream that never ends is not read for ever: the second delivery finds nobody, and the grace ends."""
    key = impatient.new_key()
    gates = [Gate() for _ in range(200)]
    upstream.answer(stream(PIECE, *(step for gate in gates for step in (gate, PIECE)), END))

    with wire.connected(impatient.url) as connection:
        connection.send(asking(key))
        connection.read_until(PIECE)
    received = upstream.received[0]
    for gate in gates:
        gate.open()
        if received.hung_up.wait(GRACE_SECONDS / 5):
            break

    charged = impatient.event(key)
    assert received.hung_up.is_set()
    assert charged.outcome is Outcome.CLIENT_CLOSED
    assert charged.completion_tokens >= 1
    assert not gates[-1].reached.is_set()


def test_an_upstream_that_cuts_a_half_closed_client(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A cut is still a cut, and told from a proper end."""
    gate = Gate()
    upstream.answer(stream(PIECE, gate, Cut()))

    with half_closed(meter, asking(key)) as connection:
        connection.read_until(PIECE)
        gate.open()
        answer = wire.parse(connection.read_to_end())

    assert (answer.body, answer.whole) == (PIECE, False)
    assert meter.event(key).outcome is Outcome.UPSTREAM_CLOSED


def test_answers_of_our_own_come_too(upstream: FakeUpstream, meter: Meter) -> None:
    """A refusal and a health check reach a client that has closed its sending side."""
    with half_closed(meter, asking("mtr_unknown_key")) as connection:
        refused = wire.parse(connection.read_to_end())
    with half_closed(meter, wire.request("GET", "/health/live")) as connection:
        live = wire.parse(connection.read_to_end())

    assert (refused.status, refused.whole) == (401, True)
    assert (live.status, live.whole) == (200, True)
    assert upstream.received == []


@pytest.mark.parametrize("left_out", [1, 60])
def test_a_request_that_is_not_complete_has_no_answer(
    left_out: int, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """A client that closes its side within the body has left, and nothing goes upstream."""
    with half_closed(meter, asking(key)[:-left_out]) as connection:
        assert connection.read_to_end() == b""

    assert upstream.received == []


def test_a_client_that_says_nothing_is_closed_on(meter: Meter) -> None:
    """A connection without a request ends with its sending side."""
    with half_closed(meter, b"") as connection:
        assert connection.read_to_end() == b""


def test_a_kept_connection_ends_with_its_sending_side(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Between two requests there is nothing to wait for."""
    upstream.answer([response(DOCUMENT)])

    with wire.connected(meter.url) as connection:
        connection.send(asking(key).replace(b"Connection: close\r\n", b""))
        connection.read_until(DOCUMENT)
        meter.events(key)
        connection.socket.shutdown(socket.SHUT_WR)

        assert wire.parse(connection.read_to_end()).body == DOCUMENT
    assert meter.event(key).outcome is Outcome.OK
