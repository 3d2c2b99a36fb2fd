"""Transactions on both databases: all or nothing, and one state to read."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from meter.store.database import Database, RowRefused
from meter.store.tables import api_keys, teams
from tests.store.conftest import NOW, second

WAIT_SECONDS_MAX = 20.0


def add_team(connection: sa.Connection, name: str) -> None:
    """Insert a team, whose id is its name."""
    connection.execute(sa.insert(teams).values(id=name, name=name, created_at=NOW))


def names(database: Database) -> list[str]:
    """Return the names of all teams."""
    with database.read() as connection:
        return list(connection.scalars(sa.select(teams.c.name).order_by(teams.c.name)))


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
    with pytest.raises(RowRefused):
        write_the_same_twice(database)

    assert names(database) == []


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

    with pytest.raises(RowRefused), database.write() as connection:
        connection.execute(sa.insert(api_keys).values(row))


def test_a_naive_time_is_refused(database: Database) -> None:
    """A time without a zone would mean another instant on every machine."""
    naive = datetime(2026, 11, 23)  # noqa: DTZ001 (what must be refused)

    with pytest.raises(RowRefused, match="naive time"), database.write() as connection:
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
    """What was committed is there for whoever opens it next."""
    with database.write() as connection:
        add_team(connection, "a")
    database.dispose()

    again = second(database)

    assert names(again) == ["a"]
    again.dispose()
