"""Migrations and tables are the same, in both directions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from meter.cli.db import bring_up_to_date, configuration, current_revision, head_revision
from meter.store.database import Database
from meter.store.tables import metadata


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Give an empty database."""
    opened = Database(f"sqlite:///{tmp_path / 'meter.db'}")
    yield opened
    opened.dispose()


def on(connection: sa.Connection) -> Config:
    """Return Alembic's configuration for a connection, as meter makes it."""
    config = configuration()
    config.attributes["connection"] = connection
    return config


def downgrade(database: Database) -> None:
    """Take all migrations back."""
    with database.write() as connection:
        command.downgrade(on(connection), "base")


def tables(database: Database) -> set[str]:
    """Return the names of meter's tables in the database."""
    with database.read() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def schema(database: Database) -> dict[str, Any]:
    """Return everything that the database says of its tables and indexes."""
    with database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"
        )
        return {row[0]: row[1] for row in rows}


def test_there_is_one_head() -> None:
    """The migrations are one line from the base to one head."""
    script = ScriptDirectory.from_config(configuration())

    revisions = list(script.walk_revisions())

    assert script.get_heads() == [head_revision()]
    assert len(script.get_bases()) == 1
    assert all(isinstance(revision.down_revision, str | None) for revision in revisions)
    assert all(revision.doc for revision in revisions)


def test_an_empty_database_is_brought_up_to_date(database: Database) -> None:
    """All tables are made, and the database knows where it is."""
    assert current_revision(database) is None

    bring_up_to_date(database)

    assert current_revision(database) == head_revision()
    assert tables(database) == set(metadata.tables)


def test_bringing_up_to_date_twice_changes_nothing(database: Database) -> None:
    """A database that is up to date is left alone."""
    bring_up_to_date(database)
    before = schema(database)

    bring_up_to_date(database)

    assert schema(database) == before


def test_down_to_the_base_and_up_again(database: Database) -> None:
    """Every migration can be taken back, which leaves nothing, and made again, which gives the same."""
    bring_up_to_date(database)
    first = schema(database)

    downgrade(database)
    nothing = tables(database)
    bring_up_to_date(database)

    assert nothing == set()
    assert schema(database) == first


def test_a_migration_step_by_step_gives_the_same(database: Database, tmp_path: Path) -> None:
    """Going up a revision at a time ends where going up at once ends."""
    bring_up_to_date(database)
    script = ScriptDirectory.from_config(configuration())
    stepwise = Database(f"sqlite:///{tmp_path / 'stepwise.db'}")

    for revision in reversed(list(script.walk_revisions())):
        with stepwise.write() as connection:
            command.upgrade(on(connection), revision.revision)

    assert schema(stepwise) == schema(database)
    stepwise.dispose()


def test_migrations_and_tables_are_the_same(database: Database) -> None:
    """After all migrations the database has exactly the tables that the code knows."""
    bring_up_to_date(database)

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_alembics_own_check_finds_nothing(database: Database) -> None:
    """`alembic check`, run as meter runs Alembic, finds nothing to generate."""
    bring_up_to_date(database)

    with database.write() as connection:
        command.check(on(connection))

    assert current_revision(database) == head_revision()


def test_defaults_and_constraints_are_the_same(database: Database, tmp_path: Path) -> None:
    """What Alembic does not compare, names of constraints and defaults of the database, is the same too."""
    bring_up_to_date(database)
    made = Database(f"sqlite:///{tmp_path / 'made.db'}")
    with made.write() as connection:
        metadata.create_all(connection)

    found = [described(each) for each in (database, made)]

    assert found[0] == found[1]
    made.dispose()


def described(database: Database) -> dict[str, Any]:
    """Describe every table by what an inspector sees."""
    with database.read() as connection:
        inspector = sa.inspect(connection)
        return {
            table: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"], column["default"])
                    for column in inspector.get_columns(table)
                },
                "key": inspector.get_pk_constraint(table),
                "foreign": inspector.get_foreign_keys(table),
                "unique": inspector.get_unique_constraints(table),
                "indexes": sorted(index["name"] or "" for index in inspector.get_indexes(table)),
            }
            for table in metadata.tables
        }


def test_a_migration_that_fails_changes_nothing(database: Database) -> None:
    """Migrations run in one transaction: a table in the way leaves the database as it was."""
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE usage_15m (in_the_way INTEGER)")

    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        bring_up_to_date(database)

    assert tables(database) == {"usage_15m"}
    assert current_revision(database) is None
