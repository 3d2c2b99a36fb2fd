"""F08 and F09: one of several processes dies, or the one that looks after them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests import wire
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures
from tests.faults.reconciler import KILLED
from tests.faults.script import Plan
from tests.faults.site import ESTABLISHED, POSTGRESQL, Site
from tests.faults.traffic import Got

ON = (POSTGRESQL,)
WORKERS = 2
STREAMS = 50
POISONS = 40
# What has crashed servers of this kind: a header of a protocol that nobody speaks here, in no encoding.
POISON = (
    b"GET /v1/models HTTP/1.1\r\nHost: meter\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: \xff\xfe\x80chat\r\n\r\n"
)


class _Streams:
    """Streams under way, and which process has which."""

    def __init__(self, site: Site, prefix: str) -> None:
        self._site = site
        self.models = [f"{prefix}{number}" for number in range(STREAMS)]
        self._ports: dict[str, int] = {}

    async def run(self, act: Callable[[], None]) -> list[Got]:
        """Act when all streams are with the upstream, and return what the clients got."""
        asking = asyncio.create_task(
            traffic.all_at_once(self._site.url, self._site.key, self.models, read=self._read)
        )
        await traffic.until(lambda: self._site.script.count == STREAMS, "all requests at the upstream")
        await asyncio.to_thread(act)
        return await asking

    def of(self, pid: int) -> set[str]:
        """Return the models whose connections a process has."""
        ports = _client_ports(pid)
        return {model for model, port in self._ports.items() if port in ports}

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: Got) -> None:
        self._ports[got.model] = writer.get_extra_info("sockname")[1]
        await traffic.read_all(reader, writer, got)


def f09(case: Case) -> list[str]:
    """Poison the workers, then abort one of them: streams on the other are not touched."""
    found: list[str] = []
    with case.site(workers=WORKERS) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=40, pause=0.03))
            streams = _Streams(site, f"f09-{run}-")
            workers = asyncio.run(_all_up(site))
            victim = workers[run % WORKERS]
            theirs: set[str] = set()

            def act(streams: _Streams = streams, victim: int = victim, theirs: set[str] = theirs) -> None:
                _poison(site)
                theirs.update(streams.of(victim))
                os.kill(victim, signal.SIGABRT)

            gots = asyncio.run(streams.run(act))
            found += _poisoned(site, workers, victim)
            others = [got for got in gots if got.model not in theirs]
            found += failures(others, "streams of the worker that lives")
            cut = sum(not got.whole for got in gots)
            case.notes.append(f"{len(theirs)} of {STREAMS} streams with the aborted worker, {cut} cut")
            found += [] if theirs and cut else ["no stream was with the aborted worker: nothing is shown"]
            found += reconciler.reconcile(site, gots, f"f09-{run}-", KILLED)
        asyncio.run(_all_up(site))
        return found + calm(site, "f09c", told=case.full)


def f08(case: Case) -> list[str]:
    """Kill the supervisor only: its children end with it, the port is free, and the next start adopts."""
    found: list[str] = []
    with case.site(workers=WORKERS) as site:
        for run in range(case.runs):
            site.start()
            site.script.play(Plan(pieces=40, pause=0.03))
            workers = asyncio.run(_all_up(site))
            gots = asyncio.run(_Streams(site, f"f08-{run}-").run(site.kill))
            found += asyncio.run(_gone(workers))
            site.start()
            found += reconciler.reconcile(site, gots, f"f08-{run}-", KILLED)
            site.end()
        site.start()
        asyncio.run(_all_up(site))
        return found + calm(site, "f08c", told=case.full)


def _poison(site: Site) -> None:
    """Send the packet so often that each worker has had it."""
    for _ in range(POISONS):
        with wire.connected(site.url) as connection:
            connection.send(POISON)
            connection.read_until(b"\r\n\r\n")


def _poisoned(site: Site, workers: list[int], victim: int) -> list[str]:
    lost = [pid for pid in workers if pid != victim and pid not in _workers(site)]
    return [f"F09: worker {pid} died of a packet" for pid in lost]


async def _gone(pids: list[int]) -> list[str]:
    """Wait for processes to end; those that don't are said."""
    try:
        await traffic.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end", 60)
    except TimeoutError:
        return [f"F08: of workers {pids} some outlive their supervisor"]
    return []


async def _all_up(site: Site) -> list[int]:
    """Wait until every worker has answered somebody, and return them."""
    answered: set[int] = set()

    def look() -> bool:
        answered.update(_answer(site))
        return len(answered & set(_workers(site))) == WORKERS

    await traffic.until(look, "an answer of each worker")
    return sorted(answered & set(_workers(site)))


def _answer(site: Site) -> list[int]:
    """Ask for a sign of life, and return whose it is."""
    with wire.connected(site.url) as connection:
        connection.send(wire.request("GET", "/health/live").replace(b"Connection: close\r\n", b""))
        connection.read_until(b"live")
        port = connection.socket.getsockname()[1]
        return [pid for pid in _workers(site) if port in _client_ports(pid)]


def _workers(site: Site) -> list[int]:
    """Return the processes that serve requests."""
    children = Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"data-" in command_of(pid)]


def command_of(pid: str) -> bytes:
    """Return how a process was started."""
    # It may end at any time.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _targets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(path.readlink()))
    return found


def _client_ports(pid: int) -> set[int]:
    """Return the ports at the other end of a process's connections."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    own = _targets(pid)
    established = [row for row in rows if row[3] == ESTABLISHED and f"socket:[{row[9]}]" in own]
    return {int(row[2].rpartition(":")[2], 16) for row in established}


EXPERIMENTS = (
    Experiment("F08", f08, 3, 0, databases=ON),
    Experiment("F09", f09, 5, 0, databases=ON),
)
