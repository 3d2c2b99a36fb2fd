"""Descriptors: too few are told; running out of them ends no server, nor keeps it busy (T29, F74)."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import server, wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import Meter, until

DOCUMENT = b'{"model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
LIVE = wire.request("GET", "/health/live")
MANY = 10**9


@contextmanager
def descriptors(meter: Meter, more: int) -> Iterator[None]:
    """Let a server open so many more files and connections."""
    pid = meter.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_open_ones(pid) + more, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def _open_ones(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def cpu_seconds(meter: Meter) -> float:
    """Return how much CPU a server has used."""
    fields = Path(f"/proc/{meter.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("more", [5, -1])
def test_running_out_of_descriptors_ends_nothing(more: int, upstream: FakeUpstream, tmp_path: Path) -> None:
    """While there are none, those who connect are closed on or wait, at no cost; then all is as before."""
    upstream.answer([response(DOCUMENT)])
    with server.running(tmp_path / "data", upstream_url=upstream.url) as meter:
        key = meter.first_key
        # It prints its key before it serves.
        until(lambda: _status(meter, LIVE) == 200, "the server")
        with descriptors(meter, more), ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(wire.connected(meter.url))
            before = cpu_seconds(meter)
            # A wait of the test's own: what is measured is that nothing happens.
            time.sleep(1)
            used = cpu_seconds(meter) - before
        until(lambda: _status(meter, LIVE) == 200, "the server")
        sent = wire.request("POST", "/v1/chat/completions", key=key, body=wire.chat())
        until(lambda: _status(meter, sent) == 200, "an answer")
        assert meter.process.poll() is None
        assert meter.event(key).prompt_tokens == 1

    assert used < 0.5, used


def test_too_few_descriptors_are_told(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The log and the doctor say so; the server takes as many connections as fit, and serves."""
    with server.running(tmp_path / "data", upstream_url=upstream.url, connections_max=MANY) as meter:
        assert _status(meter, LIVE) == 200
        seen = meter.run("doctor").stdout

    assert "raise 'ulimit -n'" in meter.log.read_text()
    assert "warn  descriptors" in seen


def test_the_limit_is_raised_to_what_is_needed(upstream: FakeUpstream, tmp_path: Path) -> None:
    """A shell's usual limit is too small for many connections, and needs not stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with server.running(tmp_path / "data", upstream_url=upstream.url) as meter:
            raised, _ = resource.prlimit(meter.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised > 256


def _status(meter: Meter, sent: bytes) -> int:
    try:
        answer = wire.exchange(meter.url, sent)
    except (OSError, IndexError):
        return 0
    return answer.status
