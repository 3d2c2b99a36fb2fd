"""What is SQLite's own: one writer at a time, and a log that only the server empties."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from meter.store.database import Database
from meter.store.tables import teams
from tests.store.conftest import second
from tests.store.test_database import add_team, names

WAIT_SECONDS_MAX = 20.0


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Give a new SQLite database."""
    return sqlite_database


def pragma(database: Database, name: str) -> object:
    """Return a setting of SQLite's as every connection has it."""
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_writers_come_one_after_the_other(database: Database, tmp_path: Path) -> None:
    """A second writer, with connections of its own like another process's, waits for the first one."""
    other = second(database)
    started, done = threading.Event(), threading.Event()
    seen: list[str] = []

    def write() -> None:
        started.set()
        with other.write() as connection:
            seen.extend(connection.scalars(sa.select(teams.c.name)))
            add_team(connection, "second")
        done.set()

    thread = threading.Thread(target=write)
    with database.write() as connection:
        thread.start()
        assert started.wait(WAIT_SECONDS_MAX)
        add_team(connection, "first")
        waited = not done.wait(0.2)
    thread.join(WAIT_SECONDS_MAX)
    other.dispose()

    assert waited
    assert seen == ["first"]
    assert names(database) == ["first", "second"]
    assert (tmp_path / "writer.lock").exists()


def test_many_writers_lose_nothing(database: Database) -> None:
    """A counter that eight threads read and write back ends at the sum of their steps."""
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE counter (value INTEGER NOT NULL)")
        connection.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def count() -> None:
        for _ in range(25):
            with database.write() as connection:
                value = connection.exec_driver_sql("SELECT value FROM counter").scalar_one()
                connection.exec_driver_sql("UPDATE counter SET value = ?", (value + 1,))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)

    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT value FROM counter").scalar_one() == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("wal_autocheckpoint", 0), ("foreign_keys", 1)],
)
def test_every_connection_is_set_up(database: Database, name: str, value: object) -> None:
    """The log is written ahead and synced, and nothing checkpoints by itself."""
    assert pragma(database, name) == value


def test_nothing_checkpoints_by_itself(database: Database, tmp_path: Path) -> None:
    """The log grows with every write until the server empties it, and nothing is lost when it does."""
    log = tmp_path / "meter.db-wal"
    sizes = []
    for number in range(3):
        with database.write() as connection:
            add_team(connection, f"team {number}")
        sizes.append(log.stat().st_size)

    database.checkpoint()

    assert sizes == sorted(set(sizes))
    assert log.stat().st_size == 0
    assert len(names(database)) == 3


def test_a_checkpoint_waits_for_writers(database: Database) -> None:
    """A checkpoint takes the writers' lock, so that it never races a commit."""
    started, done = threading.Event(), threading.Event()

    def checkpoint() -> None:
        started.set()
        database.checkpoint()
        done.set()

    thread = threading.Thread(target=checkpoint)
    with database.write() as connection:
        thread.start()
        assert started.wait(WAIT_SECONDS_MAX)
        add_team(connection, "a")
        waited = not done.wait(0.2)
    thread.join(WAIT_SECONDS_MAX)

    assert waited
    assert done.is_set()
