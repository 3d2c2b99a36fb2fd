"""Answers: how long they may take, how large they and their headers may be (T44, F48, F57)."""

import time

import pytest

from meter.core.events import Outcome
from tests import wire
from tests.fake_upstream import FakeUpstream, Gate, event, response, stream
from tests.security.conftest import RESPONSE_BYTES_MAX, RESPONSE_HEADER_BYTES_MAX, STREAM_SECONDS_MAX
from tests.server import Meter

PIECE = event({"choices": [{"index": 0, "delta": {"content": "word"}}]})
LARGE = event({"choices": [{"index": 0, "delta": {"content": "a" * 500_000}}]})


def ask(meter: Meter, key: str) -> wire.Answer:
    """Ask for a stream."""
    return wire.post(meter.url, key, wire.chat(stream=True))


@pytest.mark.long
def test_a_stream_that_takes_too_long_is_cut(bounded: Meter, upstream: FakeUpstream) -> None:
    """The client gets what had come, without an end, the upstream is hung up on, and the event says `cut`."""
    key, never = bounded.new_key(), Gate()
    upstream.answer(stream(PIECE, never))
    began = time.monotonic()

    answer = ask(bounded, key)

    charged = bounded.event(key)
    assert time.monotonic() - began >= STREAM_SECONDS_MAX - 0.1
    assert (answer.body, answer.whole) == (PIECE, False)
    assert charged.outcome is Outcome.CUT
    assert charged.completion_tokens > 0
    assert upstream.received[0].hung_up.wait(wire.SECONDS_MAX)
    never.open()


def test_an_answer_that_is_too_large_is_cut(bounded: Meter, upstream: FakeUpstream) -> None:
    """An upstream that never ends is read no further than the limit."""
    key = bounded.new_key()
    upstream.answer(stream(*[LARGE] * (2 * RESPONSE_BYTES_MAX // len(LARGE))))

    answer = ask(bounded, key)

    assert not answer.whole
    assert 0.9 * RESPONSE_BYTES_MAX < len(answer.body) < 1.1 * RESPONSE_BYTES_MAX
    assert bounded.event(key).outcome is Outcome.CUT


def test_headers_of_an_answer_are_bounded(bounded: Meter, upstream: FakeUpstream) -> None:
    """An upstream with too many headers is one that cannot be understood."""
    key = bounded.new_key()
    fine = [("X-Filler", "a" * 1000)] * (RESPONSE_HEADER_BYTES_MAX // 1000 - 2)
    upstream.answer([response(b"{}", headers=fine)], [response(b"{}", headers=[*fine, *fine])])

    assert [ask(bounded, key).status for _ in range(2)] == [200, 502]
    assert [event.outcome for event in bounded.events(key, 2)] == [Outcome.OK, Outcome.UNREACHABLE]
