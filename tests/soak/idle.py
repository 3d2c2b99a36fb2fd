"""Thousands of idle streams through one process: what each costs, what others notice, and how it ends.

python -m tests.soak.idle [--streams 10000] prints it, and exits with 1 if a bound is broken. The server
needs two open files a stream; where the limit is lower, root raises it.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from meter.store.tables import usage_events
from tests import server, wire
from tests.server import Meter
from tests.soak import outside
from tests.soak.samples import look

ROUNDS = 2
# Two pings of each stream.
MEASURED_SECONDS = 32.0
PING_SECONDS = 15.0
PAUSE_SECONDS = 0.02
# Of fewer, a percentile is chance.
REQUESTS_MIN = 500
KB = 1000
STREAM_BYTES_MAX = 40 * KB
SLOWER_MAX = 2.0
SHUTDOWN_SECONDS = 5
# What a server may take beyond the time that it gives its streams.
ENDING_SECONDS_MAX = 5.0
SETTLED_SECONDS_MAX = 120.0
MODEL = "idle"
# For normal requests beside the streams.
ROOM = 1000


def run(streams: int, say: Callable[[str], object], hurry: float = 1.0) -> list[str]:
    """Measure without streams and with them, by turns, and end the server with the last of them.

    Who is in a hurry has everything go so much faster.
    """
    outside.allow_files(2 * streams + ROOM)
    with ExitStack() as stack:
        port = stack.enter_context(outside.upstream(PING_SECONDS / hurry))
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-idle-"))) / "data"
        env = server.environment(
            data_dir,
            upstream_url=f"http://127.0.0.1:{port}/v1",
            upstream_api_key="sk-idle",
            connections_max=streams + ROOM,
            requests_max=streams + ROOM,
            hangup_grace_seconds=0.5,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
        meter = Meter(data_dir, env, [])
        stack.callback(lambda: meter.stop(signal.SIGKILL))
        return _Idle(meter, streams, MEASURED_SECONDS / hurry, say).run()


class _Idle:
    """One run."""

    def __init__(self, meter: Meter, streams: int, seconds: float, say: Callable[[str], object]) -> None:
        self._meter = meter
        self._key = meter.first_key
        self._port = int(meter.url.rpartition(":")[2].partition("/")[0])
        self._streams = streams
        self._seconds = seconds
        self._say = say
        self._without: list[float] = []
        self._with: list[float] = []
        self._violations: list[str] = []

    def run(self) -> list[str]:
        """Return what was violated."""
        self._ask(self._seconds / 10)
        for number in range(ROUNDS):
            self._without += self._ask(self._seconds)
            self._round(number)
        self._compare()
        return self._violations

    def _round(self, number: int) -> None:
        before = self._rss_bytes()
        began = time.monotonic()
        with outside.clients(self._port, self._streams, self._request()) as clients:
            opened = time.monotonic() - began
            each = (self._rss_bytes() - before) / self._streams
            self._with += self._ask(self._seconds)
            self._say(
                f"round {number + 1}: {self._streams} streams in {opened:.1f} s, {each / KB:.1f} kB each, "
                f"{before >> 20} -> {self._rss_bytes() >> 20} MiB"
            )
            # Later rounds find the memory of the first.
            if number == 0 and each > STREAM_BYTES_MAX:
                self._violations.append(f"F65: a stream takes {each / KB:.1f} kB")
            if number == ROUNDS - 1:
                self._end()
            ended = outside.hung_up(clients)
        if number < ROUNDS - 1 and ended:
            self._violations.append(f"F65: {ended} idle streams were ended")
        if number < ROUNDS - 1:
            self._settled((number + 1) * self._streams)

    def _end(self) -> None:
        """End the server with its streams; its successor says what became of them."""
        began = time.monotonic()
        self._meter.process.send_signal(signal.SIGTERM)
        status = self._meter.process.wait(SHUTDOWN_SECONDS + SETTLED_SECONDS_MAX)
        took = time.monotonic() - began
        self._say(f"SIGTERM with {self._streams} streams: status {status} after {took:.1f} s")
        if status or took > SHUTDOWN_SECONDS + ENDING_SECONDS_MAX:
            self._violations.append(f"F65: the end took {took:.1f} s, with status {status}")
        self._meter.stop()
        successor = Meter(self._meter.data_dir, self._meter.env, [])
        try:
            self._settled(ROUNDS * self._streams)
            verified = successor.run("verify").stdout.strip()
            self._violations += [] if verified == "ok" else [f"I2: verify says {verified}"]
        finally:
            successor.stop()

    def _settled(self, count: int) -> None:
        """Wait until so many streams are in the ledger."""
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        query = (
            sa.select(sa.func.count())
            .select_from(usage_events)
            .where(usage_events.c.model_requested == MODEL)
        )
        found = 0
        while found < count and time.monotonic() < deadline:
            with self._meter.database.read() as connection:
                found = connection.scalars(query).one()
            time.sleep(0.2)
        if found != count:
            self._violations.append(f"I1: {found} of {count} streams are in the ledger")

    def _compare(self) -> None:
        without, beside = outside.times(self._without), outside.times(self._with)
        self._say(f"normal requests alone: {without}")
        self._say(f"beside {self._streams} idle streams: {beside}")
        if beside.requests < REQUESTS_MIN:
            self._say("  they are too few to compare")
        elif beside.p99_ms > SLOWER_MAX * without.p99_ms:
            self._violations.append(f"F65: p99 is {beside.p99_ms / without.p99_ms:.1f} times what it was")

    def _ask(self, seconds: float) -> list[float]:
        found = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found.append(outside.ask(self._meter.url, self._key))
            time.sleep(PAUSE_SECONDS)
        return found

    def _rss_bytes(self) -> int:
        seen = look(self._meter.process.pid, 0)
        assert seen is not None
        return seen.rss_bytes

    def _request(self) -> bytes:
        body = wire.chat(model=MODEL, stream=True, stream_options={"include_usage": True})
        headers = [("Content-Type", "application/json")]
        return wire.request("POST", "/v1/chat/completions", key=self._key, body=body, headers=headers)


def _say(said: str) -> None:
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.idle", description="Idle streams.")
    parser.add_argument("--streams", type=int, default=10_000)
    violations = run(parser.parse_args().streams, _say)
    for violation in violations:
        _say(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
