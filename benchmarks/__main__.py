"""Measures meter with everything on, and nginx beside it: `python -m benchmarks`, or `make bench`.

Both get the same requests in turn, several rounds of them. The processor time of a request is that of the
proxy's process until the last of its events is in the ledger, so that it hardly depends on what else the
machine does. The ledger must hold as many events as the upstream has seen requests, or nothing counts.
"""

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import streams, upstream
from benchmarks.load import Loaded, load, paced_request
from benchmarks.processes import cpu_seconds, memory_bytes, started
from benchmarks.proxies import Installed, Proxy, nginx

AT_ONCE = (1, 16, 64)
PACED_STREAMS = 100
PACE_MS = 20
MANY_STREAMS = 1000
MANY_PACE_MS = 200
SHIPPED_SECONDS_MAX = 60.0


class Row(NamedTuple):
    """One line of the result."""

    what: str
    unit: str
    nginx: float
    meter: float

    @property
    def ratio(self) -> float:
        """How many times nginx's figure meter's is, or what part of it."""
        return self.meter / self.nginx if self.nginx > 0 else float("nan")


class Bench:
    """The running proxies, and what is done to them."""

    def __init__(
        self, folder: Path, proxies: dict[str, Proxy], direct_port: int, shipped: Callable[[], None]
    ) -> None:
        self.folder = folder
        self.proxies = proxies
        self.direct_port = direct_port
        self._shipped = shipped
        self.failed = 0

    def used(self, name: str, work: Callable[[Proxy], int]) -> float:
        """Return the processor seconds that a proxy takes for each of what the work counts."""
        proxy = self.proxies[name]
        before = cpu_seconds(proxy.pid)
        count = work(proxy)
        if name == "meter":
            self._shipped()
        return (cpu_seconds(proxy.pid) - before) / max(1, count)

    def requests(self, port: int, key: str, *, at_once: int, seconds: float, stream: bool = False) -> Loaded:
        """Load a port."""
        done = load(self.folder, port, key, at_once=at_once, seconds=seconds, stream=stream)
        self.failed += done.failed
        return done

    def paced(self, proxy: Proxy, count: int, pace_ms: int) -> int:
        """Read paced streams; returns how many events came."""
        done = streams.read(proxy.port, paced_request(proxy.key, pace_ms), count)
        self.failed += done.failed
        return done.events


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _count(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count") as answer:
        return int(answer.read())


def _waiting(control_port: int, token: str) -> float:
    headers = {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{control_port}/metrics", headers=headers)
    with urllib.request.urlopen(request) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("meter_journal_records "))


def _wait_until_shipped(control_port: int, token: str) -> None:
    deadline = time.monotonic() + SHIPPED_SECONDS_MAX
    while _waiting(control_port, token):
        if time.monotonic() > deadline:
            raise RuntimeError("the ledger does not come after")
        time.sleep(0.1)


@contextlib.contextmanager
def _running(durability: str) -> Iterator[tuple[Bench, Installed, int]]:
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as path, contextlib.ExitStack() as stack:
        folder = Path(path)
        for_nginx, for_meter, of_nginx, of_meter, control = _free_ports(5)
        for port in (for_nginx, for_meter):
            command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
            stack.enter_context(started(command, port, folder / "upstream.log"))
        installed = Installed(folder, of_meter, for_meter, durability)
        proxies = {
            "nginx": stack.enter_context(nginx(folder, of_nginx, for_nginx)),
            "meter": stack.enter_context(installed.running(control)),
        }
        token = (folder / "meter-data" / "admin-token").read_text().strip()
        bench = Bench(folder, proxies, for_nginx, lambda: _wait_until_shipped(control, token))
        yield bench, installed, for_meter


def _times(bench: Bench, seconds: float, rounds: int, at_once: int) -> list[Row]:
    """Measure whole answers: what a request takes, and what is added to its time."""
    found: dict[str, list[Loaded]] = {"direct": [], "nginx": [], "meter": []}
    cpu: dict[str, list[float]] = {"nginx": [], "meter": []}

    def work(proxy: Proxy) -> int:
        done = bench.requests(proxy.port, proxy.key, at_once=at_once, seconds=seconds)
        found[proxy.name].append(done)
        return done.requests

    for _ in range(rounds):
        found["direct"].append(bench.requests(bench.direct_port, "none", at_once=at_once, seconds=seconds))
        for name, values in cpu.items():
            values.append(bench.used(name, work))
    direct50 = statistics.median(done.p50_us for done in found["direct"])
    direct99 = statistics.median(done.p99_us for done in found["direct"])
    added50 = {name: statistics.median(done.p50_us for done in found[name]) - direct50 for name in cpu}
    added99 = {name: statistics.median(done.p99_us for done in found[name]) - direct99 for name in cpu}
    used = {name: 1e6 * statistics.median(values) for name, values in cpu.items()}
    return [
        Row(f"JSON, {at_once} at once", "CPU µs a request", used["nginx"], used["meter"]),
        Row(f"JSON, {at_once} at once", "added µs, median", added50["nginx"], added50["meter"]),
        Row(f"JSON, {at_once} at once", "added µs, 99 %", added99["nginx"], added99["meter"]),
    ]


def _bursts(bench: Bench, seconds: float, rounds: int) -> Row:
    def work(proxy: Proxy) -> int:
        done = bench.requests(proxy.port, proxy.key, at_once=16, seconds=seconds, stream=True)
        return done.requests * (upstream.EVENTS + 1)

    used = {n: statistics.median(bench.used(n, work) for _ in range(rounds)) for n in bench.proxies}
    return Row("streams, at once", "events a CPU second", 1 / used["nginx"], 1 / used["meter"])


def _paced(bench: Bench, rounds: int) -> Row:
    def work(proxy: Proxy) -> int:
        return bench.paced(proxy, PACED_STREAMS, PACE_MS)

    used = {n: statistics.median(bench.used(n, work) for _ in range(rounds)) for n in bench.proxies}
    what = f"streams, an event in {PACE_MS} ms"
    return Row(what, "events a CPU second", 1 / used["nginx"], 1 / used["meter"])


def _memory(bench: Bench) -> list[Row]:
    rest, peak = {}, {}
    for name, proxy in bench.proxies.items():
        rest[name] = memory_bytes(proxy.pid)
        bench.paced(proxy, MANY_STREAMS, MANY_PACE_MS)
        peak[name] = memory_bytes(proxy.pid, peak=True)
    each = {name: (peak[name] - rest[name]) / MANY_STREAMS / 1e3 for name in peak}
    what = f"{MANY_STREAMS} streams"
    return [
        Row(what, "MB in all", peak["nginx"] / 1e6, peak["meter"] / 1e6),
        Row(what, "kB a stream", each["nginx"], each["meter"]),
    ]


def _print(rows: list[Row]) -> None:
    sys.stdout.write("| what | unit | nginx | meter | meter / nginx |\n|---|---|---|---|---|\n")
    for row in rows:
        figures = f"{row.nginx:,.1f} | {row.meter:,.1f} | {row.ratio:.2f}"
        sys.stdout.write(f"| {row.what} | {row.unit} | {figures} |\n")


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="How long each load lasts.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--durability", choices=("crash", "power"), default="power")
    parser.add_argument("--quick", action="store_true", help="16 at once and streams, nothing else.")
    given = parser.parse_args()
    at_once = (16,) if given.quick else AT_ONCE
    with _running(given.durability) as (bench, installed, counting_port):
        for proxy in bench.proxies.values():
            bench.requests(proxy.port, proxy.key, at_once=16, seconds=1)
        rows = [row for many in at_once for row in _times(bench, given.seconds, given.rounds, many)]
        rows += [_bursts(bench, given.seconds, given.rounds), _paced(bench, given.rounds)]
        rows += [] if given.quick else _memory(bench)
        _print(rows)
        bench.used("meter", lambda _: 1)
        sent, counted = _count(counting_port), installed.requests_counted()
        sys.stdout.write(f"\nrequests {sent}, events in the ledger {counted}, failed {bench.failed}; ")
        sys.stdout.write(f"meter verify: {installed.verify()}\n")
    return 0 if sent == counted and not bench.failed else 1


if __name__ == "__main__":
    sys.exit(main())
