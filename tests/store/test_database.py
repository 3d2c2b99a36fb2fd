"""Transactions on SQLite: all or nothing, one writer at a time, one state to read, a log that is emptied."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from meter.store.database import Database
from meter.store.tables import api_keys, teams
from tests.store.conftest import NOW

WAIT_SECONDS_MAX = 20.0


def add_team(connection: sa.Connection, name: str) -> None:
    """Insert a team, whose id is its name."""
    connection.execute(sa.insert(teams).values(id=name, name=name, created_at=NOW))


def names(database: Database) -> list[str]:
    """Return the names of all teams."""
    with database.read() as connection:
        return list(connection.scalars(sa.select(teams.c.name).order_by(teams.c.name)))


def pragma(database: Database, name: str) -> object:
    """Return a setting of SQLite's as every connection has it."""
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


class Interrupted(Exception):
    """What goes wrong in the middle of a transaction."""


def write_and_fail(database: Database) -> None:
    """Write a team, and then let the block end with an error."""
    with database.write() as connection:
        add_team(connection, "a")
        raise Interrupted


def write_the_same_twice(database: Database) -> None:
    """Write a team twice, which the database refuses."""
    with database.write() as connection:
        add_team(connection, "a")
        add_team(connection, "a")


def test_a_write_commits_at_its_end(database: Database) -> None:
    """What a block writes is there afterwards, for every connection."""
    with database.write() as connection:
        add_team(connection, "a")
        add_team(connection, "b")

    assert names(database) == ["a", "b"]


def test_a_write_that_fails_changes_nothing(database: Database) -> None:
    """An error anywhere in a block takes back all that the block wrote, and the next one can write."""
    with pytest.raises(Interrupted):
        write_and_fail(database)

    with database.write() as connection:
        add_team(connection, "b")
    assert names(database) == ["b"]


def test_a_statement_that_fails_takes_the_others_along(database: Database) -> None:
    """A refusal of the database's takes back what was written before it in the same block."""
    with pytest.raises(sa.exc.IntegrityError):
        write_the_same_twice(database)

    assert names(database) == []


def test_writers_come_one_after_the_other(database: Database, tmp_path: Path) -> None:
    """A second writer, with connections of its own like another process's, waits for the first one."""
    other = Database(str(database.url))
    started, done = threading.Event(), threading.Event()
    seen: list[str] = []

    def write() -> None:
        started.set()
        with other.write() as connection:
            seen.extend(connection.scalars(sa.select(teams.c.name)))
            add_team(connection, "second")
        done.set()

    second = threading.Thread(target=write)
    with database.write() as connection:
        second.start()
        assert started.wait(WAIT_SECONDS_MAX)
        add_team(connection, "first")
        waited = not done.wait(0.2)
    second.join(WAIT_SECONDS_MAX)
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


def test_the_writers_lock_is_freed_by_an_error(database: Database) -> None:
    """A writer that fails does not keep the others waiting for ever."""
    for _ in range(3):
        with pytest.raises(Interrupted), database.write():
            raise Interrupted

    with database.write() as connection:
        add_team(connection, "a")
    assert names(database) == ["a"]


def test_a_reader_sees_one_state(database: Database) -> None:
    """What is committed within a read is seen by the next read, not by this one."""
    query = sa.select(sa.func.count()).select_from(teams)

    with database.read() as reader:
        before = reader.scalar(query)
        with database.write() as writer:
            add_team(writer, "a")
        within = reader.scalar(query)

    assert (before, within) == (0, 0)
    assert names(database) == ["a"]


def test_a_reader_does_not_see_what_is_not_committed(database: Database) -> None:
    """An open transaction is invisible to others, and does not make them wait."""
    with database.write() as writer:
        add_team(writer, "a")
        seen = names(database)

    assert seen == []


def test_foreign_keys_are_enforced(database: Database) -> None:
    """A key cannot belong to a team that is not there."""
    row = {"id": "k", "team_id": "nobody", "name": "k", "digest": b"d" * 32, "created_at": NOW}

    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(sa.insert(api_keys).values(row))


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


def test_a_naive_time_is_refused(database: Database) -> None:
    """A time without a zone would mean another instant on every machine."""
    naive = datetime(2026, 11, 23)  # noqa: DTZ001 (what must be refused)

    with pytest.raises(sa.exc.StatementError, match="naive time"), database.write() as connection:
        connection.execute(sa.insert(teams).values(id="a", name="a", created_at=naive))

    assert names(database) == []


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T12:34:56.789012+00:00", "2026-11-23T18:04:56.789012+05:30", "2026-11-23T00:00:00-05:00"],
)
def test_an_instant_comes_back_as_it_went_in(database: Database, text: str) -> None:
    """An instant of any zone comes back as the same instant, in UTC, to the microsecond."""
    instant = datetime.fromisoformat(text)

    with database.write() as connection:
        connection.execute(sa.insert(teams).values(id="a", name="a", created_at=instant))

    with database.read() as connection:
        stored = connection.execute(sa.select(teams.c.created_at)).scalar_one()
    assert stored == instant
    assert stored.tzinfo is UTC


def test_the_database_can_be_opened_again(database: Database) -> None:
    """What was committed is there for whoever opens the file next."""
    with database.write() as connection:
        add_team(connection, "a")
    database.dispose()

    again = Database(str(database.url))

    assert names(again) == ["a"]
    again.dispose()
