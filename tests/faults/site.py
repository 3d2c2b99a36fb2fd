"""Where an experiment happens: an upstream, a data directory, a database, and one server after the other."""

import contextlib
import re
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.journal.folder import DRAFT
from meter.store.database import Database, DatabaseUnavailable
from meter.store.tables import usage_events
from tests import server, services
from tests.faults import script
from tests.faults.script import CANARY_CREDENTIAL, Script
from tests.server import Meter

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
ESTABLISHED = "01"


@dataclass
class Site:
    """One data directory with its servers; at most one of them lives."""

    script: Script
    data_dir: Path
    database_url: str | None = None
    """PostgreSQL's; `None` is SQLite in the data directory."""
    settings: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """What servers find in their environment beside their settings."""
    meter: Meter | None = None
    key: str = ""
    dead: list[Meter] = field(default_factory=list)
    searched: bool = False
    """Whether somebody has looked for secrets here."""
    _database: Database | None = None
    _log_start: int = 0

    @property
    def running(self) -> Meter:
        """The server that lives."""
        assert self.meter is not None
        return self.meter

    @property
    def url(self) -> str:
        """Where it is."""
        return self.running.url

    @property
    def pid(self) -> int:
        """Its number."""
        return self.running.process.pid

    @property
    def log(self) -> str:
        """What all servers of this data directory have logged."""
        path = self.data_dir.parent / f"{self.data_dir.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def database(self) -> Database:
        """The database, past any proxy."""
        if self._database is None:
            url = self.database_url or f"sqlite:///{self.data_dir / 'meter.db'}"
            self._database = Database(url)
        return self._database

    def start(self, **settings: object) -> Meter:
        """Start a server on the data directory."""
        shared = {"upstream_url": self.script.upstream.url, "upstream_api_key": CANARY_CREDENTIAL}
        if self.database_url is not None:
            shared |= {"database_url": self.database_url}
        env = server.environment(self.data_dir, **(shared | self.settings | settings)) | self.environment
        self._log_start = len(self.log)
        self.meter = Meter(self.data_dir, env, [])
        # A server that was killed right behind the creation of the first key has told it to nobody.
        self.key = self.key or self.running.new_key()
        return self.running

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the server, and return its exit status."""
        meter, self.meter = self.running, None
        self.dead.append(meter)
        return meter.stop(number)

    def kill(self) -> None:
        """End the server as a crash does."""
        self.end(signal.SIGKILL)

    def restart(self, **settings: object) -> Meter:
        """Start the next server after the last one has been ended."""
        if self.meter is not None:
            self.end()
        return self.start(**settings)

    def events(self, prefix: str = "") -> dict[str, list[UsageEvent]]:
        """Return the ledger's events by the model asked for, which names the request."""
        found: dict[str, list[UsageEvent]] = {}
        query = sa.select(usage_events).where(usage_events.c.model_requested.startswith(prefix))
        try:
            with self.database.read() as connection:
                rows = connection.execute(query).mappings().all()
        except DatabaseUnavailable:
            return {}
        for row in rows:
            values = {name: row[name] for name in UsageEvent.__struct_fields__}
            values |= {"outcome": Outcome(row["outcome"]), "usage_source": UsageSource(row["usage_source"])}
            event = UsageEvent(**values)
            found.setdefault(event.model_requested, []).append(event)
        return found

    def metrics(self) -> str:
        """Return the metrics page."""
        with self.running.control as control:
            return control.get("/metrics").text

    def counted(self, name: str) -> float:
        """Return a metric, summed over its labels."""
        lines = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, lines))

    @property
    def adopted(self) -> int:
        """How many attempts of dead servers the living one says to have made events of."""
        told = re.findall(r"adopted the journal of \S+: (\d+) attempts", self.log[self._log_start :])
        return sum(map(int, told))

    def descriptors(self) -> int:
        """Count the server's open files, but for those that pools keep, which have bounds of their own.

        They are connections to the upstream and the database; SQLite has several files for each.
        """
        folder = Path(f"/proc/{self.pid}/fd")
        kept = self._pooled_sockets()
        targets = [_target(path) for path in folder.iterdir()]
        return sum(target not in kept and not Path(target).name.startswith("meter.db") for target in targets)

    def _pooled_sockets(self) -> set[str]:
        """Return the open connections to upstream and database, as they are shown among open files."""
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        rows = [line.split() for line in lines]
        database = sa.make_url(self.database_url).port if self.database_url else None
        ports = {f"{port:04X}" for port in (self.script.upstream.port, database) if port}
        return {f"socket:[{row[9]}]" for row in rows if row[2][-4:] in ports and row[3] == ESTABLISHED}

    def memory_bytes(self) -> int:
        """Return how much memory the server holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096

    def journals(self) -> list[Path]:
        """Return the folders of all journals."""
        root = self.data_dir / "journal"
        if not root.exists():
            return []
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(DRAFT))

    def segments(self) -> list[Path]:
        """Return the segments of journals that are not done, in order."""
        folders = [folder for folder in self.journals() if not (folder / "done").exists()]
        return [path for folder in folders for path in sorted(folder.glob("*.log"))]

    def reopen(self) -> None:
        """Open the database anew when it is next asked."""
        if self._database is not None:
            self._database.dispose()
            self._database = None

    def close(self) -> None:
        """Leave nothing running."""
        if self.meter is not None:
            with contextlib.suppress(Exception):
                self.end(signal.SIGKILL)
        self.reopen()


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""


@contextmanager
def opened(database: str, url: str | None = None, **settings: object) -> Iterator[Site]:
    """Open a site with nothing on it yet; `url` is a database of the caller's."""
    with ExitStack() as stack:
        played = stack.enter_context(script.running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-faults-")))
        if database == POSTGRESQL:
            url = url or stack.enter_context(services.fresh_database())
            settings = {"pepper": secrets.token_urlsafe(48)} | settings
        site = Site(played, folder / "data", url, settings)
        stack.callback(site.close)
        yield site
