"""A real meter, in a process of its own, and a view of what it keeps."""

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.store import ledger
from meter.store.database import Database
from meter.store.tables import usage_events
from tests import wire
from tests.databases import new_sqlite

WAIT_SECONDS_MAX = 20.0
# What takes long is looked at more and more seldom: looking takes time that others need.
LOOK_SECONDS_MIN = 0.005
LOOK_SECONDS_MAX = 0.1
# Reading all certificates of the machine takes longer than any request, none of which is for them.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# With METER_TEST_ASGI every request goes through ASGI, as those do that are not ordinary.
PROGRAM = (sys.executable, "-m", "tests.asgi" if os.environ.get("METER_TEST_ASGI") else "meter")

T = TypeVar("T")


def environment(data_dir: Path, **settings: object) -> dict[str, str]:
    """Return an environment in which nothing configures meter but these settings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("METER_", "ROUTERHUB_"))
    }
    transport = {"upstream_transport": os.environ.get("METER_TEST_TRANSPORT", "httptools")}
    settings = {"prices_seed": "none", "auth_failures_rpm": 0} | transport | settings
    given = {f"METER_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | {"METER_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | given


def until(look: Callable[[], T], what: str) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    pause = LOOK_SECONDS_MIN
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS_MAX:.0f} s for {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, LOOK_SECONDS_MAX)
    return seen


class Meter:
    """A running `meter serve`."""

    def __init__(
        self,
        data_dir: Path,
        env: Mapping[str, str],
        arguments: list[str],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.data_dir = data_dir
        self.env = dict(env)
        command = [*program, "serve", "--port", "0", "--admin-port", "0", *arguments]
        self.log = data_dir.parent / f"{data_dir.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.env, cwd=data_dir.parent, stdout=subprocess.PIPE, stderr=log
            )
        self._printed = bytearray()
        self.notes = self._read_notes()
        self.url = f"{self._noted(r'proxy +(http://.+)/v1')}/v1"
        self.control_url = self._noted(r"control +(http://\S+)")
        self.admin_token = (data_dir / "admin-token").read_text().strip()
        self.database = Database(f"sqlite:///{data_dir / 'meter.db'}")

    @property
    def first_key(self) -> str:
        """The key that the first start showed."""
        return self._noted(r"(mtr_\w+)")

    @property
    def control(self) -> httpx.Client:
        """A client of the control listener, with its token."""
        return httpx.Client(
            base_url=self.control_url,
            headers={"authorization": f"Bearer {self.admin_token}"},
            timeout=WAIT_SECONDS_MAX,
            trust_env=False,
            verify=NO_TLS,
        )

    def new_key(self, team: str = "default", *, known: bool = False, **members: object) -> str:
        """Make a key over the admin API; one that the server knows goes the short way at once."""
        with self.control as control:
            answer = control.post("/api/v1/keys", json={"team": team, **members})
        assert answer.status_code == httpx.codes.CREATED, answer.text
        key: str = answer.json()["key"]
        if known:
            self.show(key)
        return key

    def show(self, key: str) -> None:
        """Have the server look a key up: ordinary requests of keys that it knows go the short way."""
        wire.exchange(self.url, wire.request("GET", "/v1/meter/key", key=key))

    def events(self, key: str, count: int = 1) -> list[UsageEvent]:
        """Wait for a key's events to be in the ledger, and return them in order."""
        key_id = key.split("_")[1]
        ours = usage_events.c.key_id == key_id
        counted = sa.select(sa.func.count()).select_from(usage_events).where(ours)

        def there() -> bool:
            with self.database.read() as connection:
                return connection.scalars(counted).one() >= count

        if count:
            until(there, f"{count} events of {key_id}")
        with self.database.read() as connection:
            query = sa.select(usage_events).where(ours).order_by(usage_events.c.started_at)
            return [ledger.read_event(row) for row in connection.execute(query).mappings()]

    def event(self, key: str) -> UsageEvent:
        """Wait for the one event of a key."""
        (event,) = self.events(key)
        return event

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of meter's on the same data."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=self.env,
            cwd=self.data_dir.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def report(self, *arguments: str) -> Any:
        """Run `meter report --format json`."""
        done = self.run("report", "--format", "json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the process, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(WAIT_SECONDS_MAX)
        finally:
            self.process.kill()
            self.process.wait()
            self.printed()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.database.dispose()

    def printed(self) -> bytes:
        """Return everything that it has printed so far, on standard output."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            os.set_blocking(self.process.stdout.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while self._print():
                    pass
        return bytes(self._printed)

    def _print(self) -> bool:
        """Take in something that it prints; says whether there was anything left."""
        assert self.process.stdout is not None
        piece = os.read(self.process.stdout.fileno(), 1 << 16)
        self._printed += piece
        return bool(piece)

    def _read_notes(self) -> str:
        """Wait for what a start prints, which ends with a line that can be pasted."""
        while self._print():
            notes = self._printed.decode()
            if "curl" in notes and "\n" in notes.partition("curl")[2]:
                return notes
        self.process.wait(WAIT_SECONDS_MAX)
        raise AssertionError(f"meter did not start:\n{self._printed.decode()}\n{self.log.read_text()}")

    def _noted(self, pattern: str) -> str:
        found = re.search(pattern, self.notes)
        assert found is not None, self.notes
        return found[1]


@contextlib.contextmanager
def running(data_dir: Path, *arguments: str, **settings: object) -> Iterator[Meter]:
    """Run meter until the block ends; it must stop cleanly.

    Where there is no data directory yet, it finds one whose tables are made; in an empty one it makes them.
    """
    if not data_dir.exists() and "database_url" not in settings:
        data_dir.mkdir(mode=0o700)
        new_sqlite(data_dir / "meter.db")
    meter = Meter(data_dir, environment(data_dir, **settings), list(arguments))
    try:
        yield meter
    finally:
        status = meter.stop()
    assert status == 0, meter.log.read_text()
