"""Databases for tests of what commands and the admin API do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database
from tests import services
from tests.databases import new_sqlite


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """Make a PostgreSQL database with all tables, one for a test process, to be copied."""
    with services.fresh_database() as url:
        database = Database(url)
        bring_up_to_date(database)
        database.dispose()
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a new database with all of its tables."""
    if request.param == "sqlite":
        yield new_sqlite(tmp_path / "meter.db")
        return
    with services.copied(request.getfixturevalue("postgres_template")) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Give that database."""
    opened = Database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """Give a new SQLite database with all of its tables."""
    opened = Database(new_sqlite(tmp_path / "meter.db"))
    yield opened
    opened.dispose()
