"""The proxies that run side by side, what is sent through them, and what that took."""

import contextlib
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import streams
from benchmarks.load import Asked, Loaded, Target, load, paced_request
from benchmarks.processes import cpu_seconds, free_ports, started
from benchmarks.proxies import Installed, Proxy, nginx

METER = "meter"
CRASH = "meter, crash"
"""Beside the other, which syncs its journal: durability `power`."""


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


def write(rows: Iterable[Row]) -> None:
    """Print a table."""
    sys.stdout.write("| what | unit | nginx | meter | meter / nginx |\n|---|---|---|---|---|\n")
    for row in rows:
        figures = f"{row.nginx:,.1f} | {row.meter:,.1f} | {row.ratio:.2f}"
        sys.stdout.write(f"| {row.what} | {row.unit} | {figures} |\n")
    sys.stdout.flush()


class Bench:
    """The running proxies, and what is done to them."""

    def __init__(
        self, folder: Path, direct: Proxy, proxies: dict[str, Proxy], meters: dict[str, Installed]
    ) -> None:
        self.folder = folder
        self.direct = direct
        self.proxies = proxies
        self.meters = meters
        self.failed = 0

    def used(self, name: str, work: Callable[[Proxy], int]) -> float:
        """Return the processor seconds that a proxy takes for each of what the work counts."""
        proxy = self.proxies[name]
        before = cpu_seconds(proxy.pid)
        count = work(proxy)
        if name in self.meters:
            self.meters[name].wait_until_shipped()
        return (cpu_seconds(proxy.pid) - before) / max(1, count)

    def compared(self, rounds: int, work: Callable[[Proxy], int]) -> dict[str, float]:
        """Return what nginx and meter take, the median of several rounds in turn."""
        found: dict[str, list[float]] = {"nginx": [], METER: []}
        for _ in range(rounds):
            for name, values in found.items():
                values.append(self.used(name, work))
        return {name: statistics.median(values) for name, values in found.items()}

    def load(self, proxy: Proxy, asked: Asked, *, at_once: int, seconds: float) -> Loaded:
        """Keep requests under way."""
        target = Target(proxy.port, proxy.key)
        done = load(self.folder, target, asked, at_once=at_once, seconds=seconds)
        self.failed += done.failed
        return done

    def paced(self, proxy: Proxy, count: int, pace_ms: int, events: int) -> streams.Read:
        """Read paced streams."""
        done = streams.read(proxy.port, paced_request(proxy.key, pace_ms, events), count)
        self.failed += done.failed
        return done

    def accounts(self) -> list[tuple[int, int, str]]:
        """Return for each meter what its upstream was sent, what its ledger holds, and its own verdict."""
        for meter in self.meters.values():
            meter.wait_until_shipped()
        return [(sent(meter.upstream), meter.counted(), meter.verify()) for meter in self.meters.values()]


def sent(upstream: int) -> int:
    """Return how many requests came to an upstream."""
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/count") as answer:
        return int(answer.read())


@contextlib.contextmanager
def upstreams(folder: Path, ports: Iterable[int]) -> Iterator[None]:
    """Run upstreams."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
            stack.enter_context(started(command, port, folder / "upstream.log"))
        yield


@contextlib.contextmanager
def running(durabilities: dict[str, str]) -> Iterator[Bench]:
    """Run nginx and meters, each with an upstream of its own; meters are named with their durabilities."""
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as path, contextlib.ExitStack() as stack:
        folder = Path(path)
        for_nginx, of_nginx = free_ports(2)
        sources = dict(zip(durabilities, free_ports(len(durabilities)), strict=True))
        stack.enter_context(upstreams(folder, [for_nginx, *sources.values()]))
        proxies = {"nginx": stack.enter_context(nginx(folder, of_nginx, for_nginx))}
        meters = {}
        for name, durability in durabilities.items():
            port, control = free_ports(2)
            meters[name] = Installed(folder / durability, port, sources[name], durability)
            proxies[name] = stack.enter_context(meters[name].running(control, name))
        yield Bench(folder, Proxy("direct", for_nginx, 0, "none"), proxies, meters)
