"""Attempts are gone when they have ended, without the garbage collector, which looks for them seldom."""

import re
import sys
from pathlib import Path

from tests import server, wire
from tests.fake_upstream import DONE, FakeUpstream, event, response, stream
from tests.server import Meter
from tests.uncollected import LEFT

PROGRAM = (sys.executable, "-m", "tests.uncollected")
PIECE = event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
OK = [response(b'{"choices":[]}')]
ROUNDS = 10


def test_nothing_of_an_attempt_is_left(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Documents and streams, answered with and without ASGI, refused and left early, leave nothing behind."""
    upstream.answer(lambda asked: stream(PIECE, PIECE, DONE) if b'"stream": true' in asked.body else OK)
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    meter = Meter(data_dir, server.environment(data_dir, upstream_url=upstream.url), [], PROGRAM)
    try:
        direct, by_asgi = meter.new_key(known=True), meter.new_key()
        for key in (direct, by_asgi):
            for _ in range(ROUNDS):
                wire.post(meter.url, key, wire.chat())
                wire.post(meter.url, key, wire.chat(stream=True))
                wire.post(meter.url, key, wire.chat(model=7))
        meter.events(direct, 2 * ROUNDS)
    finally:
        meter.stop()

    left = dict(re.findall(rf"{LEFT}(\w+): (\d+)", meter.log.read_text()))

    assert left.keys() == {"Cycle", "Pump", "Tap"}
    # The last one of a kind may be in somebody's hands yet.
    assert all(int(count) <= 1 for count in left.values()), left
