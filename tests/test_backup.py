"""A copy made while events are written is one state of the database: restored, it passes `meter verify`.

The commands are those of docs/operations.md.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from meter.cli.migrations import bring_up_to_date
from meter.store import ledger
from meter.store.database import Database
from meter.store.partitions import make_partitions
from tests import server, services
from tests.store.conftest import closing_database, random_event

pytestmark = pytest.mark.long

GUIDE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
BATCHES_MIN = 5
WAIT_SECONDS_MAX = 60.0


def documented(program: str) -> str:
    """Return the command of the guide's sections about backups and restoring that begins so."""
    section = GUIDE.split("## Backup\n", 1)[1].split("\n## Doctor")[0]
    found = re.search(rf"^\$ ({program}.*)$", section, re.MULTILINE)
    assert found is not None
    return found[1]


def run(command: str, folder: Path, **variables: str) -> None:
    """Run a command of the guide in a shell."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def being_written(database: Database) -> Iterator[Callable[[], None]]:
    """Append events all the while; yields what waits for some more to be there."""
    random, stop, told = Random(5), threading.Event(), threading.Condition()
    written = 0
    since, until = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            ledger.append(database, [random_event(random, since, until) for _ in range(20)], until)
            with told:
                written += 1
                told.notify_all()

    def more() -> None:
        with told:
            goal = written + BATCHES_MIN
            assert told.wait_for(lambda: written >= goal, WAIT_SECONDS_MAX)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield more
    finally:
        stop.set()
        thread.join(WAIT_SECONDS_MAX)


def verified(folder: Path, **settings: object) -> str:
    """Run `meter verify` on a database."""
    done = subprocess.run(
        [sys.executable, "-m", "meter", "verify"],
        env=server.environment(folder, **settings),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def count(database: Database) -> int:
    """Count the events."""
    with database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM usage_events").scalar_one())


def test_sqlite_by_vacuum_into(tmp_path: Path) -> None:
    """`VACUUM INTO` copies a database that is being written into a file of its own."""
    if shutil.which("sqlite3") is None:
        pytest.skip("there is no sqlite3")
    data, copy = tmp_path / "meter-data", tmp_path / "restored"
    data.mkdir()
    copy.mkdir()
    with closing_database(f"sqlite:///{data / 'meter.db'}") as database:
        bring_up_to_date(database)
        with being_written(database) as more:
            more()
            run(documented("sqlite3"), tmp_path)
            more()
        written = count(database)
    (copied,) = tmp_path.glob("backup-*.db")
    copied.rename(copy / "meter.db")

    assert verified(copy) == "ok\n"
    with closing(sqlite3.connect(copy / "meter.db")) as connection:
        kept = connection.execute("SELECT count(*) FROM usage_events").fetchone()[0]
    assert 0 < kept < written


def test_postgresql_by_pg_dump(tmp_path: Path) -> None:
    """`pg_dump` copies all partitions in one state, and `pg_restore` brings them back."""
    if shutil.which("pg_dump") is None:
        pytest.skip("there is no pg_dump")
    with services.fresh_database() as url, services.fresh_database() as other:
        with closing_database(url) as database:
            bring_up_to_date(database)
            make_partitions(database, datetime(2026, 10, 5, tzinfo=UTC))
            with being_written(database) as more:
                more()
                run(documented("pg_dump"), tmp_path, METER_DATABASE_URL=url)
                more()
            written = count(database)
        (dump,) = tmp_path.glob("backup-*.dump")
        dump.rename(tmp_path / "backup.dump")
        run(documented("pg_restore"), tmp_path, METER_DATABASE_URL=other)

        assert verified(tmp_path, database_url=other, pepper="p" * 32) == "ok\n"
        with closing_database(other) as restored:
            assert 0 < count(restored) < written
            # It goes on like any other.
            bring_up_to_date(restored)
            assert make_partitions(restored, datetime(2027, 1, 5, tzinfo=UTC)) == []
