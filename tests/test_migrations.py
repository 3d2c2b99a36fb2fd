"""Migrations and tables are the same, in both directions."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from meter.cli.migrations import bring_up_to_date, configuration
from meter.store import revision
from meter.store.database import Database, DatabaseUnavailable
from meter.store.partitions import is_partition, make_partitions
from meter.store.tables import metadata
from tests import services
from tests.patience import within

pytestmark = pytest.mark.long

NOW = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
SERVERS = 3
WAIT_SECONDS_MAX = 30.0
TEAM = "INSERT INTO teams (id, name, created_at) VALUES ('t', 't', :at)"
KEY = """
INSERT INTO api_keys (id, team_id, name, digest, created_at, rotated_from)
VALUES (:id, 't', :id, :digest, :at, :before)
"""
BUDGET = """
INSERT INTO budgets (id, owner_kind, owner_id, model, measure, period, tz, "limit", enforcement, thresholds,
                     created_at, updated_at)
VALUES (:id, 'key', :owner, '', 'cost', :period, 'UTC', :limit, 'strict', '[]', :at, :at)
"""
SCHEMA = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'",
    "postgresql": """
        SELECT c.oid::regclass::text, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
          (SELECT array_agg(row(a.attname, a.atttypid, a.atttypmod, a.attnotnull,
                                pg_get_expr(d.adbin, d.adrelid))::text ORDER BY a.attnum)
             FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0),
          (SELECT array_agg(pg_get_indexdef(i.indexrelid) ORDER BY 1)
             FROM pg_index i WHERE i.indrelid = c.oid),
          (SELECT array_agg(pg_get_constraintdef(k.oid) ORDER BY 1)
             FROM pg_constraint k WHERE k.conrelid = c.oid)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND c.relname NOT LIKE 'alembic%'
    """,
}


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Give what makes empty databases, of either kind."""
    numbers = count(1)
    with ExitStack() as stack:

        def make() -> Database:
            on_sqlite = f"sqlite:///{tmp_path / f'{next(numbers)}.db'}"
            url = on_sqlite if request.param == "sqlite" else stack.enter_context(services.fresh_database())
            made = Database(url)
            stack.callback(made.dispose)
            return made

        yield make


@pytest.fixture
def database(empty: Callable[[], Database]) -> Database:
    """Give an empty database."""
    return empty()


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
        names = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
    return {name for name in names if not is_partition(name)}


def schema(database: Database) -> dict[str, Any]:
    """Return everything that the database says of its tables and indexes."""
    with database.read() as connection:
        rows = connection.execute(sa.text(SCHEMA[connection.dialect.name])).all()
    return {row[0]: tuple(row[1:]) for row in rows}


def test_there_is_one_head() -> None:
    """The migrations are one line from the base to one head, which is the version that meter expects."""
    script = ScriptDirectory.from_config(configuration())

    revisions = list(script.walk_revisions())

    assert script.get_heads() == [revision.HEAD]
    assert len(script.get_bases()) == 1
    assert all(isinstance(each.down_revision, str | None) for each in revisions)
    assert all(each.doc for each in revisions)


def test_an_empty_database_is_brought_up_to_date(database: Database) -> None:
    """All tables are made, and the database knows where it is."""
    assert revision.current(database) is None

    bring_up_to_date(database)

    assert revision.current(database) == revision.HEAD
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


def test_a_migration_step_by_step_gives_the_same(database: Database, empty: Callable[[], Database]) -> None:
    """Going up a revision at a time ends where going up at once ends."""
    bring_up_to_date(database)
    script = ScriptDirectory.from_config(configuration())
    stepwise = empty()

    for each in reversed(list(script.walk_revisions())):
        with stepwise.write() as connection:
            command.upgrade(on(connection), each.revision)

    assert schema(stepwise) == schema(database)


def test_migrations_and_tables_are_the_same(database: Database) -> None:
    """After all migrations the database has exactly the tables that the code knows."""
    bring_up_to_date(database)

    with database.read() as connection:
        compared = {"compare_type": True, "include_name": lambda name, *_: not is_partition(name or "")}
        context = MigrationContext.configure(connection, opts=compared)
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_alembics_own_check_finds_nothing(database: Database) -> None:
    """`alembic check`, run as meter runs Alembic, finds nothing to generate."""
    bring_up_to_date(database)

    with database.write() as connection:
        command.check(on(connection))

    assert revision.current(database) == revision.HEAD


def test_defaults_and_constraints_are_the_same(database: Database, empty: Callable[[], Database]) -> None:
    """What Alembic does not compare, names of constraints and defaults of the database, is the same too."""
    bring_up_to_date(database)
    made = empty()
    with made.write() as connection:
        metadata.create_all(connection)

    found = [described(each) for each in (database, made)]

    assert found[0] == found[1]


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


def test_budgets_of_rotated_keys_become_those_of_their_line(database: Database) -> None:
    """What the newest key of a line was allowed holds for all of them, and each line has it once."""
    with database.write() as connection:
        command.upgrade(on(connection), "0007")
        connection.execute(sa.text(TEAM), {"at": NOW})
        for number, (key, before) in enumerate((("a", None), ("b", "a"), ("c", "b"), ("alone", None))):
            row = {"id": key, "digest": key.encode(), "at": NOW + timedelta(days=number), "before": before}
            connection.execute(sa.text(KEY), row)
        for budget, owner, period, limit in (
            ("a-day", "a", "day", 1),
            ("b-day", "b", "day", 2),
            ("c-day", "c", "day", 3),
            ("b-month", "b", "month", 4),
            ("alone-day", "alone", "day", 5),
        ):
            row = {"id": budget, "owner": owner, "period": period, "limit": limit, "at": NOW}
            connection.execute(sa.text(BUDGET), row)

    bring_up_to_date(database)

    with database.read() as connection:
        lines = connection.execute(sa.text("SELECT id, first_id FROM api_keys ORDER BY id")).all()
        kept = connection.execute(sa.text("SELECT id, owner_id FROM budgets ORDER BY id")).all()
    assert list(map(tuple, lines)) == [("a", None), ("alone", None), ("b", "a"), ("c", "a")]
    assert list(map(tuple, kept)) == [("alone-day", "alone"), ("b-month", "a"), ("c-day", "a")]


def test_a_migration_that_fails_changes_nothing(database: Database) -> None:
    """Migrations run in one transaction: a table in the way leaves the database as it was."""
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE usage_15m (in_the_way INTEGER)")

    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        bring_up_to_date(database)

    assert tables(database) == {"usage_15m"}
    assert revision.current(database) is None


def test_migrations_that_run_at_once_wait_for_each_other(database: Database, tmp_path: Path) -> None:
    """Of several servers that start at once one migrates, and the others find it done."""
    environment = {
        "METER_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "METER_DATA_DIR": str(tmp_path / "data"),
        "METER_PEPPER": "a pepper that is long enough to be a secret",
        "METER_PRICES_SEED": "none",
    }
    command_line = [sys.executable, "-m", "meter", "db", "upgrade"]

    servers = [
        subprocess.Popen(command_line, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        for _ in range(SERVERS)
    ]
    told = [server.communicate(timeout=WAIT_SECONDS_MAX)[0].strip() for server in servers]

    assert [server.returncode for server in servers] == [0] * SERVERS, told
    assert revision.current(database) == revision.HEAD


@pytest.fixture
def postgres() -> Iterator[Database]:
    """Give an empty PostgreSQL database."""
    with services.fresh_database() as url:
        opened = Database(url)
        yield opened
        opened.dispose()


def test_the_check_is_clean_with_partitions(postgres: Database) -> None:
    """The partitions that servers make are none of the migrations' business, and go with the ledger."""
    bring_up_to_date(postgres)
    make_partitions(postgres, NOW)

    with postgres.write() as connection:
        command.check(on(connection))
    downgrade(postgres)

    with postgres.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version"}


def test_a_migration_does_not_wait_long_for_a_lock(postgres: Database) -> None:
    """Where somebody holds a table, the migration gives up, changes nothing, and can be run again."""
    bring_up_to_date(postgres)

    with postgres.write() as holder:
        holder.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        holder.exec_driver_sql("SELECT count(*) FROM usage_15m")
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            within(2 * 4, lambda: downgrade(postgres))

    assert revision.current(postgres) == revision.HEAD


def test_a_statement_of_a_migration_may_take_so_long_only(postgres: Database) -> None:
    """How long a statement may take is decided by whoever runs the migrations."""
    with (
        pytest.raises(DatabaseUnavailable, match="statement timeout"),
        postgres.write_long(0.1) as connection,
    ):
        connection.exec_driver_sql("SELECT pg_sleep(10)")
