"""Requests under way: so many and no more, and each gives its place back, however it ends (T29, F74)."""

from contextlib import ExitStack

from tests import wire
from tests.fake_upstream import Cut, FakeUpstream, Gate, response, stream
from tests.security.conftest import REQUESTS_MAX
from tests.security.listeners import metric
from tests.server import Meter, until

DOCUMENT = b'{"model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'


def test_requests_beyond_the_limit_get_503(bounded: Meter, upstream: FakeUpstream) -> None:
    """What is under way goes on and is metered; once it has ended there is room again."""
    key, gate = bounded.new_key(), Gate()
    upstream.answer([gate, response(DOCUMENT)])
    sent = wire.request("POST", "/v1/chat/completions", key=key, body=wire.chat())
    refusals = 'meter_refusals_total{reason="overloaded"}'
    before = metric(bounded, refusals)

    with ExitStack() as stack:
        running = [stack.enter_context(wire.connected(bounded.url)) for _ in range(REQUESTS_MAX)]
        for connection in running:
            connection.send(sent)
        until(lambda: len(upstream.received) == REQUESTS_MAX, "the requests upstream")
        refused = wire.exchange(bounded.url, sent)
        listed = wire.exchange(bounded.url, wire.request("GET", "/v1/meter/key", key=key))
        gate.open()
        answers = [wire.parse(connection.read_to_end()) for connection in running]

    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert refused.header("retry-after") == "1"
    assert listed.status == 200
    assert [answer.status for answer in answers] == [200] * REQUESTS_MAX
    assert len(bounded.events(key, REQUESTS_MAX)) == REQUESTS_MAX
    assert metric(bounded, refusals) == before + 1


def test_every_end_gives_its_place_back(bounded: Meter, upstream: FakeUpstream) -> None:
    """Refusals, cuts and clients that leave leave nothing behind: no place, and no byte."""
    key = bounded.new_key()
    good = wire.chat()
    upstream.answer(
        [response(b"", status="500 Oops")], [Cut()], stream(b"data: a\n\n", Cut()), [response(DOCUMENT)]
    )
    for body in (good, good, good, b"{", b"[" * 100_000, wire.chat(model="")):
        wire.post(bounded.url, key, body)
    for _ in range(2 * REQUESTS_MAX):
        with wire.connected(bounded.url) as connection:
            connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=good)[:-3])

    for _ in range(REQUESTS_MAX):
        assert until(lambda: wire.post(bounded.url, key, good).status == 200, "a free place")
    assert until(lambda: metric(bounded, "meter_held_bytes") == 0, "nothing to be held")
