"""What a soak stands on: one server, its processes, and its database."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests import services
from tests.faults.site import POSTGRESQL, Site, opened
from tests.soak.load import Load
from tests.soak.samples import Flatness, Life, look
from tests.soak.upstream import Moods

WORKERS = 2
VICTIM = "data-1"
SERVER = "server"
KNOWN_AFTER = 10
# Kept connections are closed by then.
LET_GO_SECONDS_MAX = 90.0
SETTINGS = {"hangup_grace_seconds": 1, "idle_timeout_seconds": 5, "shutdown_timeout_seconds": 5}


@dataclass
class Ground:
    """A site under load, whoever its processes are at the moment."""

    database: str
    site: Site
    load: Load
    moods: Moods
    started_at: datetime
    """Before the server that lives was started."""
    cluster: services.Cluster | None = None
    lives: dict[int, Life] = field(default_factory=dict)
    quiet: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by who takes the database away, and by who reads it."""

    @property
    def alone(self) -> bool:
        """Whether the server is a single process, so that whoever kills it kills all."""
        return self.database != POSTGRESQL

    @property
    def processes(self) -> dict[str, int]:
        """The server's processes by their names."""
        if self.site.meter is None:
            return {}
        found = {SERVER: self.site.pid}
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.site.pid}/task/{self.site.pid}/children").read_text("ascii")
            for child in map(int, children.split()):
                command = Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                found[command[-1].decode()] = child
        return found

    def sample(self, at: float) -> None:
        """Look at every process."""
        for name, pid in self.processes.items():
            if (seen := look(pid, at)) is not None:
                self.lives.setdefault(pid, Life(name, pid)).samples.append(seen)

    async def known(self) -> None:
        """Ask until the key is known to every process: on a busy machine, looking it up may take too long."""
        answered = 0
        while answered < KNOWN_AFTER:
            answered = answered + 1 if (await self.load.ask("first", self.site.key)).status == 200 else 0

    def let_go(self, compared: list[Flatness]) -> list[str]:
        """Wait until those that live have no more open files at rest than they had under load at first."""
        found = []
        deadline = time.monotonic() + LET_GO_SECONDS_MAX
        for each in compared:
            while (seen := look(each.life.pid, 0)) and seen.descriptors > each.descriptors_bound:
                if time.monotonic() > deadline:
                    found.append(f"I7: {each.life.name} still has {seen.descriptors} open files: {each}")
                    break
                time.sleep(0.1)
        return found

    async def tell(self, number: signal.Signals) -> None:
        """Send a signal to the one worker that such things are done to, or to the only process there is."""
        processes = self.processes
        os.kill(processes[SERVER if self.alone else VICTIM], number)

    async def replaced(self, number: signal.Signals) -> None:
        """End a process, and wait for its successor."""
        if self.alone:
            await asyncio.to_thread(self.site.end, number)
            self.started_at = datetime.now(UTC)
            await asyncio.to_thread(self.site.start)
            return
        before = self.processes[VICTIM]
        os.kill(before, number)
        while self.processes.get(VICTIM, before) == before:  # noqa: ASYNC110 (the kernel tells nobody)
            await asyncio.sleep(0.05)

    @contextmanager
    def control(self) -> Iterator[httpx.AsyncClient]:
        """Give a client of the admin API; it need not be closed."""
        meter = self.site.running
        yield httpx.AsyncClient(
            base_url=meter.control_url,
            headers={"authorization": f"Bearer {meter.admin_token}"},
            timeout=30,
            trust_env=False,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of a SQLite file against all other writers."""
        with closing(sqlite3.connect(self.site.data_dir / "meter.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                other.execute("ROLLBACK")


@contextmanager
def laid(database: str, seed: int) -> Iterator[Ground]:
    """Start a server on a database of its own: two workers on PostgreSQL, one process on SQLite."""
    with ExitStack() as stack:
        cluster = stack.enter_context(services.cluster()) if database == POSTGRESQL else None
        settings = dict(SETTINGS) | ({"workers": WORKERS} if cluster else {})
        site = stack.enter_context(opened(database, cluster.url if cluster else None, **settings))
        moods = Moods(seed)
        site.script.play(moods.plan)
        started_at = datetime.now(UTC)
        site.start()
        yield Ground(database, site, Load(site, seed), moods, started_at, cluster)
