"""Databases for tests of what commands and the admin API do."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database
from tests import services


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a new database with all of its tables."""
    with ExitStack() as stack:
        sqlite = f"sqlite:///{tmp_path / 'meter.db'}"
        made = sqlite if request.param == "sqlite" else stack.enter_context(services.fresh_database())
        database = Database(made)
        bring_up_to_date(database)
        database.dispose()
        yield made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Give that database."""
    opened = Database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """Give a new SQLite database with all of its tables."""
    opened = Database(f"sqlite:///{tmp_path / 'meter.db'}")
    bring_up_to_date(opened)
    yield opened
    opened.dispose()
