"""Memory for bodies: what all of them take together has an end (T23, T26, F10)."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import server, wire
from tests.fake_upstream import FakeUpstream, Gate, response
from tests.security.conftest import HELD_BYTES_MAX
from tests.security.listeners import metric
from tests.server import Meter, until

DOCUMENT = b'{"model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'


def test_bodies_beyond_the_limit_get_503(bounded: Meter, upstream: FakeUpstream) -> None:
    """A body that would be too much together with those that are held is refused; alone it passes."""
    key = bounded.new_key()
    upstream.answer([response(DOCUMENT)])
    large = wire.request(
        "POST", "/v1/chat/completions", key=key, body=wire.chat(user="u" * (HELD_BYTES_MAX // 4))
    )

    with ExitStack() as stack:
        # Two bodies of which the end is missing are held; a third has no room to be decoded.
        for _ in range(2):
            stack.enter_context(wire.connected(bounded.url)).send(large[:-1])
        until(lambda: metric(bounded, "meter_held_bytes") > HELD_BYTES_MAX * 0.49, "two bodies to be held")
        refused = wire.exchange(bounded.url, large)
    until(lambda: metric(bounded, "meter_held_bytes") == 0, "nothing to be held")
    alone = wire.exchange(bounded.url, large)

    assert (refused.status, refused.error["code"], refused.header("retry-after")) == (503, "overloaded", "1")
    assert alone.status == 200


def test_a_body_of_brackets_counts_as_what_it_takes(bounded: Meter, upstream: FakeUpstream) -> None:
    """A small body that would take much memory once it is decoded is refused before it is."""
    key = bounded.new_key()
    brackets = b'{"model": "m", "x": [' + b"[]," * 100_000 + b"[]]}"

    refused = wire.post(bounded.url, key, brackets)

    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert upstream.received == []


def test_a_body_is_forgotten_once_the_upstream_answers(bounded: Meter, upstream: FakeUpstream) -> None:
    """A stream that lasts holds nothing of its request."""
    key, gate = bounded.new_key(), Gate()
    head = response(length=False, headers=[("Content-Type", "text/event-stream")])
    upstream.answer([head, b"data: a\n\n", gate])
    body = wire.chat(user="u" * 500_000, stream=True)

    with wire.connected(bounded.url) as connection:
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        connection.read_until(b"data: a")
        until(lambda: metric(bounded, "meter_held_bytes") == 0, "the body to be forgotten")
        gate.open()
    assert bounded.event(key).prompt_tokens > 0


@pytest.mark.long
def test_memory_stays_below_the_limit(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Forty bodies of twenty megabytes at once: some pass, some get 503, and the process stays small."""
    data_dir = tmp_path_factory.mktemp("memory") / "data"
    upstream.answer([response(DOCUMENT)])
    sent = wire.request("POST", "/v1/chat/completions", key="KEY", body=wire.chat(user="u" * 19_000_000))
    with (
        server.running(data_dir, upstream_url=upstream.url, held_bytes_max=100_000_000) as meter,
        ExitStack() as stack,
    ):
        asked = sent.replace(b"Bearer KEY", b"Bearer " + meter.first_key.encode())
        connections = [stack.enter_context(wire.connected(meter.url)) for _ in range(40)]
        for connection in connections:
            connection.send(asked[:-1])
        peak = _resident_mb(meter)
        for connection in connections:
            try:
                connection.send(asked[-1:])
            except OSError:
                continue
        answers = [connection.read_to_end() for connection in connections]
        peak = max(peak, _resident_mb(meter))
        until(lambda: wire.exchange(meter.url, asked).status == 200, "room again")
    statuses = {wire.parse(answer).status for answer in answers if answer}

    assert statuses <= {200, 503}
    assert 503 in statuses
    assert peak < 400, peak


def _resident_mb(meter: Meter) -> float:
    status = Path(f"/proc/{meter.process.pid}/status").read_text(encoding="ascii")
    return max(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000
