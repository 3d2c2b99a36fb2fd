"""Fixtures and makers for tests of the store: databases of both kinds, and events to put into them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.store.database import Database
from meter.store.partitions import make_partitions
from meter.store.tables import metadata
from tests import services
from tests.databases import new_sqlite

NOW = datetime(2026, 11, 23, 12, 34, 56, 789012, tzinfo=UTC)
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """Give a new SQLite database with all of its tables."""
    with closing_database(new_sqlite(tmp_path / "meter.db")) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Make a PostgreSQL database with all tables, one for a test process: making and dropping it is slow."""
    with services.fresh_database() as url:
        with closing_database(url) as opened:
            bring_up_to_date(opened)
            make_partitions(opened, NOW)
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """Give a PostgreSQL database with all of its tables, which are empty."""
    with closing_database(postgres_url) as opened:
        with opened.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Give a database of either kind with all of its tables, which are empty."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


@contextmanager
def closing_database(url: str) -> Iterator[Database]:
    """Open a database, and close it."""
    opened = Database(url)
    try:
        yield opened
    finally:
        opened.dispose()


def second(database: Database) -> Database:
    """Open a database again, with connections of its own, as another process would."""
    return Database(database.url.render_as_string(hide_password=False))


def new_event_id(random: Random, at: datetime = NOW) -> str:
    """Mint an event's id."""
    return uuid7(int(at.timestamp() * 1000), random.randbytes(10))


def make_event(event_id: str, **fields: object) -> UsageEvent:
    """Make an event, of one key unless told otherwise."""
    values: dict[str, object] = {
        "event_id": event_id,
        "started_at": NOW,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "upstream",
        "model_requested": "model",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "status": 200,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


def random_event(random: Random, since: datetime, until: datetime) -> UsageEvent:
    """Make an event with random everything between two instants."""
    started_at = since + (until - since) * random.random()
    tokens = {name: random.choice([0, 1, 7, random.randrange(10**6)]) for name in TOKENS}
    return make_event(
        new_event_id(random, started_at),
        started_at=started_at,
        team_id=random.choice(["t1", "t2"]),
        key_id=random.choice(["k1", "k2", "k3"]),
        upstream=random.choice(["u1", "u2"]),
        model_requested=random.choice(["m1", "m2"]),
        model_served=random.choice([None, "m1", "m3"]),
        outcome=random.choice(list(Outcome)),
        usage_source=random.choice(list(UsageSource)),
        cost=random.choice([None, 0, random.randrange(10**15)]),
        upstream_cost=random.choice([None, random.randrange(10**15)]),
        end_user=random.choice([None, "u-1", "u-2"]),
        tags=tuple(random.sample(["a", "b", "c"], random.randrange(4))),
        **tokens,
    )
