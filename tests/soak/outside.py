"""Programs beside the server, and how long a normal request takes while they do what they do."""

import contextlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests import wire

READ_BYTES = 1 << 16


class Times(NamedTuple):
    """How long normal requests took, in milliseconds."""

    median_ms: float
    p99_ms: float
    max_ms: float
    requests: int

    def __str__(self) -> str:
        return (
            f"median {self.median_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, max {self.max_ms:.1f} ms "
            f"({self.requests} requests)"
        )


def times(seconds: list[float]) -> Times:
    """Sum up how long requests took."""
    found = sorted(1000 * each for each in seconds)
    return Times(statistics.median(found), found[int(len(found) * 0.99)], found[-1], len(found))


def ask(url: str, key: str) -> float:
    """Send a normal request, which must be answered; returns how long that took."""
    began = time.monotonic()
    answer = wire.post(url, key, wire.chat(model="normal"))
    assert answer.status == 200, answer
    return time.monotonic() - began


def allow_files(count: int) -> None:
    """Let this process, and whatever it starts, have so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
        except ValueError:
            raise SystemExit(
                f"this needs {count} open files, and {hard} are allowed: raise 'ulimit -Hn', or ask for fewer"
            ) from None


@contextmanager
def upstream(ping_seconds: float = 15.0) -> Iterator[int]:
    """Run the silent upstream; yields its port."""
    with started("tests.soak.silent_upstream", str(ping_seconds)) as process:
        yield int(line(process))


@contextmanager
def clients(port: int, count: int, request: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Run clients of idle streams, all of which have an answer."""
    with started("tests.soak.many_clients", str(port), str(count)) as process:
        assert process.stdin is not None
        process.stdin.write(b"%d\n" % len(request) + request)
        process.stdin.flush()
        said = line(process)
        assert said == f"open {count}", f"of {count} streams: {said}"
        yield process


def hung_up(process: subprocess.Popen[bytes]) -> int:
    """Have clients hang up; returns of how many the stream had ended before."""
    assert process.stdin is not None
    process.stdin.close()
    return int(line(process).removeprefix("ended "))


@contextmanager
def started(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program of ours, and end it with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def line(process: subprocess.Popen[bytes]) -> str:
    """Read the next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()
