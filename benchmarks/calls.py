"""What a request calls: functions of Python and C on the event loop's thread, by module.

`python -m benchmarks.calls`, or `make bench-calls`. Counts hardly depend on what else the machine does, so
that a change can be judged by them where times say nothing.
"""

import argparse
import os
import pstats
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Asked, Target, load
from benchmarks.measuring import upstreams
from benchmarks.processes import free_ports
from benchmarks.proxies import Installed

AT_ONCE = 16
WAIT_SECONDS_MAX = 20.0
SHOWN = 40


class Called(NamedTuple):
    """Calls of functions by their modules; those of C count for whoever called them."""

    python: Counter[str]
    c: Counter[str]


def main() -> int:
    """Count and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("--stream", action="store_true", help="Streams of 200 events, at once.")
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meter-calls-") as path:
        requests, called = _measure(Path(path), Asked(stream=given.stream), given.seconds)
    total = (called.python.total() + called.c.total()) / requests
    sys.stdout.write(f"{requests} requests, {total:,.0f} calls a request\n\n")
    sys.stdout.write("| module | Python | C |\n|---|---|---|\n")
    for module, _ in (called.python + called.c).most_common(SHOWN):
        counts = f"{called.python[module] / requests:,.1f} | {called.c[module] / requests:,.1f}"
        sys.stdout.write(f"| {module} | {counts} |\n")
    return 0


def _measure(folder: Path, asked: Asked, seconds: float) -> tuple[int, Called]:
    source, port, control = free_ports(3)
    counts = folder / "calls"
    with upstreams(folder, [source]):
        installed = Installed(folder / "meter", port, source, "power")
        with installed.running(control, program=("benchmarks.profiled", str(counts))) as meter:
            target = Target(port, meter.key)
            load(folder, target, asked, at_once=AT_ONCE, seconds=1)
            os.kill(meter.pid, signal.SIGUSR1)
            done = load(folder, target, asked, at_once=AT_ONCE, seconds=seconds)
            os.kill(meter.pid, signal.SIGUSR2)
            _wait_for(counts)
    return done.requests, _read(counts)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not path.exists() or not path.stat().st_size:
        if time.monotonic() > deadline:
            raise RuntimeError("the counts do not come")
        time.sleep(0.1)


def _read(path: Path) -> Called:
    called = Called(Counter(), Counter())
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]  # Its only public face prints.
    for (file, _, _), (_, count, _, _, callers) in stats.items():
        if file != "~":
            called.python[_module(file)] += count
            continue
        for (caller, _, _), (_, calls, _, _) in callers.items():
            called.c[_module(caller)] += calls
    return called


def _module(file: str) -> str:
    path = Path(file)
    for root in (Path.cwd(), *map(Path, sys.path)):
        if root.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root)).rpartition("site-packages/")[2]
    return path.name


if __name__ == "__main__":
    sys.exit(main())
