"""What is SQLite's own: one writer at a time, and a log that only the server empties."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.store import sqlite
from meter.store.database import Database, DatabaseUnavailable
from meter.store.failures import DatabaseDamaged
from meter.store.tables import teams
from tests.patience import within
from tests.store.conftest import closing_database, second
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


def checkpoint_and_add(database: Database, name: str) -> None:
    """Empty the log as far as readers let it, and write."""
    database.checkpoint()
    with database.write() as connection:
        add_team(connection, name)


def test_a_checkpoint_waits_for_no_reader(database: Database, tmp_path: Path) -> None:
    """A long report keeps the log from being emptied, and nobody else from writing."""
    with database.write() as connection:
        add_team(connection, "before")

    with database.read() as reader:
        assert reader.scalars(sa.select(teams.c.name)).all() == ["before"]
        with database.write() as connection:
            add_team(connection, "meanwhile")
        within(sqlite.BUSY_TIMEOUT_SECONDS / 2, lambda: checkpoint_and_add(database, "after"))
    log_bytes = (tmp_path / "meter.db-wal").stat().st_size
    database.checkpoint()

    assert log_bytes
    assert not (tmp_path / "meter.db-wal").stat().st_size
    assert names(database) == ["after", "before", "meanwhile"]


def test_a_file_that_another_program_locks_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody writes past meter for long, the database is away for a while."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing_database(f"sqlite:///{tmp_path / 'meter.db'}") as database:
        bring_up_to_date(database)
        with closing(sqlite3.connect(tmp_path / "meter.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(DatabaseUnavailable, match="locked"):
                write_team(database)
        write_team(database)


def test_a_full_disk_is_away(database: Database) -> None:
    """Where there is no room, nothing is wrong with the row."""
    with pytest.raises(DatabaseUnavailable, match="full"), database.write() as connection:
        write_past_the_last_page(connection)

    write_team(database)
    assert names(database) == ["a"]


def test_a_file_that_is_no_database_is_away(tmp_path: Path) -> None:
    """A file of something else is not a database, and stays what it is."""
    path = tmp_path / "meter.db"
    path.write_text("no database" * 1000, encoding="ascii")
    with closing_database(f"sqlite:///{path}") as database:
        for work in (names, write_team):
            with pytest.raises(DatabaseUnavailable, match="not a database"):
                work(database)

    assert path.read_text(encoding="ascii").startswith("no database")


def damage_last_page(path: Path) -> None:
    """Write garbage over a page that nobody reads at the start."""
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xa5" * 4096)


def test_damage_is_found(database: Database, tmp_path: Path) -> None:
    """A page that is wrong is found before anybody needs it; a file that is well, or new, is not refused."""
    write_team(database)
    database.checkpoint()
    database.check(WAIT_SECONDS_MAX)
    database.dispose()
    damage_last_page(tmp_path / "meter.db")

    with pytest.raises(DatabaseDamaged):
        database.check(WAIT_SECONDS_MAX)

    with closing_database(f"sqlite:///{tmp_path / 'new.db'}") as new:
        new.check(WAIT_SECONDS_MAX)


def test_looking_for_damage_takes_no_longer_than_allowed(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not looked at in time is not looked at, and the connection is as good as before."""
    monkeypatch.setattr(sqlite, "STEPS_BETWEEN_LOOKS", 1)
    database.checkpoint()
    database.dispose()
    damage_last_page(tmp_path / "meter.db")

    database.check(seconds_max=-1)

    with database.read_long() as connection:
        assert connection.scalar(sa.select(sa.literal(3))) == 3


def test_a_folder_that_is_gone_is_away(tmp_path: Path) -> None:
    """Where the data directory is gone, neither reading nor writing makes another one."""
    with closing_database(f"sqlite:///{tmp_path / 'gone' / 'meter.db'}") as database:
        for work in (names, write_team):
            with pytest.raises(DatabaseUnavailable):
                work(database)

    assert not (tmp_path / "gone").exists()


def write_team(database: Database) -> None:
    """Write something."""
    with database.write() as connection:
        add_team(connection, "a")


def write_past_the_last_page(connection: sa.Connection) -> None:
    """Fill the file as far as it may grow."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
    try:
        for number in range(10_000):
            add_team(connection, f"team {number}")
    finally:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")


def removed(database: Database) -> Path:
    """Remove a database's files, and return where it stood."""
    assert database.path is not None
    for file in database.path.parent.glob(f"{database.path.name}*"):
        file.unlink()
    return database.path


def commit_team(database: Database, name: str) -> None:
    """Commit a team."""
    with database.write() as connection:
        add_team(connection, name)


def test_a_file_that_is_gone_takes_no_commit_along(database: Database) -> None:
    """A commit into a file that nobody can find any more would be lost, so that it is refused."""
    commit_team(database, "one")
    path = removed(database)

    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="is gone"):
            commit_team(database, "two")

    assert not path.exists()


def test_a_file_that_was_replaced_gets_the_commit(database: Database) -> None:
    """Where another database was put in its place, that is the one that is written to and read."""
    commit_team(database, "one")
    path = removed(database)
    with closing_database(f"sqlite:///{path}") as other:
        bring_up_to_date(other)

    commit_team(database, "two")

    assert names(database) == ["two"]
