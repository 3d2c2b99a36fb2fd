"""The ledger's partitions on PostgreSQL: made ahead, by anybody, and never in the way of an event."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from meter.cli.migrations import bring_up_to_date
from meter.core.events import UsageEvent
from meter.store import ledger
from meter.store.database import Database, DatabaseUnavailable
from meter.store.partitions import make_partitions
from tests import services
from tests.patience import within
from tests.server import until
from tests.store.conftest import NOW, closing_database, make_event, new_event_id, second

RANDOM = Random(3)
WAIT_SECONDS_MAX = 20.0
NEW_YEAR = datetime(2028, 1, 1, tzinfo=UTC)


@pytest.fixture
def postgres_database() -> Iterator[Database]:
    """Give a database of this test's own, because its partitions stay."""
    with services.fresh_database() as url, closing_database(url) as opened:
        bring_up_to_date(opened)
        yield opened


def event_at(instant: datetime) -> UsageEvent:
    """Make an event that began at an instant."""
    return make_event(new_event_id(RANDOM, instant), started_at=instant, cost=1)


def partitions(database: Database) -> dict[str, str]:
    """Return the ledger's partitions and what they are for."""
    query = (
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits "
        "JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'usage_events'::regclass"
    )
    with database.read() as connection:
        return {row[0]: row[1] for row in connection.exec_driver_sql(query)}


def placed(database: Database) -> dict[str, int]:
    """Count the events of each partition."""
    with database.read() as connection:
        return Counter(
            connection.exec_driver_sql("SELECT tableoid::regclass::text FROM usage_events").scalars()
        )


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (datetime(2028, 5, 31, 23, 59, 59, tzinfo=UTC), {"2028_05", "2028_06", "2028_07"}),
        (datetime(2028, 12, 1, tzinfo=UTC), {"2028_12", "2029_01", "2029_02"}),
        # Still December in UTC.
        (datetime.fromisoformat("2029-01-01T00:30:00+01:00"), {"2028_12", "2029_01", "2029_02"}),
    ],
)
def test_this_month_and_the_next_two(postgres_database: Database, now: datetime, names: set[str]) -> None:
    """Partitions are made ahead, by the months of UTC."""
    before = partitions(postgres_database).keys()

    in_default = make_partitions(postgres_database, now)

    assert in_default == []
    assert partitions(postgres_database).keys() - before == {f"usage_events_{name}" for name in names}


def test_a_partition_is_a_month_of_utc(postgres_database: Database) -> None:
    """A partition begins and ends at midnight in UTC, whatever zone its maker was in."""
    make_partitions(postgres_database, NEW_YEAR)

    bounds = partitions(postgres_database)["usage_events_2028_02"]

    assert bounds == "FOR VALUES FROM ('2028-02-01 00:00:00+00') TO ('2028-03-01 00:00:00+00')"


def test_making_them_again_changes_nothing(postgres_database: Database) -> None:
    """Whatever is there is left alone."""
    make_partitions(postgres_database, NEW_YEAR)
    before = partitions(postgres_database)

    assert make_partitions(postgres_database, NEW_YEAR) == []
    assert partitions(postgres_database) == before


def test_events_lie_in_their_month(postgres_database: Database) -> None:
    """An event lies in the partition of the month in which it began, or else in the default one."""
    make_partitions(postgres_database, NEW_YEAR)
    microsecond = timedelta(microseconds=1)
    instants = [NEW_YEAR - microsecond, NEW_YEAR, NEW_YEAR + timedelta(days=31) - microsecond]
    events = [event_at(instant) for instant in [*instants, datetime(2001, 2, 3, tzinfo=UTC)]]

    ledger.append(postgres_database, events, NOW)

    assert placed(postgres_database) == {"usage_events_default": 2, "usage_events_2028_01": 2}
    assert [ledger.find(postgres_database, event.event_id) for event in events] == events
    assert ledger.verify(postgres_database) == []


def test_events_in_the_default_partition_count_once_too(postgres_database: Database) -> None:
    """What lies in the default partition is recognised when it comes again."""
    event = event_at(NEW_YEAR)

    appended = [ledger.append(postgres_database, [event], NOW) for _ in range(2)]

    assert appended == [1, 0]


def test_a_month_that_has_events_in_the_default_partition_stays_there(postgres_database: Database) -> None:
    """Where the partition comes too late it is not made, which is said, and the others are."""
    early, late = event_at(NEW_YEAR), event_at(NEW_YEAR + timedelta(hours=1))
    ledger.append(postgres_database, [early], NOW)

    in_default = [make_partitions(postgres_database, NEW_YEAR) for _ in range(2)]
    ledger.append(postgres_database, [early, late], NOW)

    assert in_default == [["usage_events_2028_01"]] * 2
    assert {"usage_events_2028_02", "usage_events_2028_03"} <= partitions(postgres_database).keys()
    assert "usage_events_2028_01" not in partitions(postgres_database)
    assert placed(postgres_database) == {"usage_events_default": 2}
    assert ledger.verify(postgres_database) == []


def test_many_servers_make_them_at_once(postgres_database: Database) -> None:
    """Servers that start together, while others write, don't get into each other's way."""
    others = [second(postgres_database) for _ in range(4)]
    gate = threading.Barrier(len(others))
    made: list[list[str]] = []

    def start(database: Database) -> None:
        gate.wait(WAIT_SECONDS_MAX)
        made.append(make_partitions(database, NEW_YEAR))
        ledger.append(database, [event_at(NEW_YEAR) for _ in range(20)], NOW)

    threads = [threading.Thread(target=start, args=(database,)) for database in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)
    for database in others:
        database.dispose()

    assert made == [[]] * len(others)
    assert placed(postgres_database) == {"usage_events_2028_01": 20 * len(others)}


def test_the_ledger_is_written_while_a_partition_waits(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long read of the default partition makes a new one wait, and never the ledger."""
    make_partitions(postgres_database, NOW)
    # Longer than any stall of the machine, so that it still waits when the ledger has been written.
    monkeypatch.setattr("meter.store.partitions.LOCK_SECONDS_MAX", WAIT_SECONDS_MAX)
    made: list[list[str]] = []
    making = threading.Thread(target=lambda: made.append(make_partitions(postgres_database, NEW_YEAR)))
    with reading_default(postgres_database):
        making.start()
        until(lambda: somebody_waits(postgres_database), "the new partition to wait for the reader")
        appended = ledger.append(postgres_database, [event_at(NOW) for _ in range(10)], NOW)
        still_waiting = somebody_waits(postgres_database)
    making.join(WAIT_SECONDS_MAX)

    assert (appended, still_waiting) == (10, True)
    assert made == [[]]


@contextmanager
def reading_default(database: Database) -> Iterator[None]:
    """Read the default partition for as long as the block takes, however long that is."""
    with database.read_long() as reader:
        reader.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        reader.exec_driver_sql("SELECT count(*) FROM usage_events_default")
        yield


def somebody_waits(database: Database) -> bool:
    """Say whether somebody waits for a lock of the default partition."""
    query = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'usage_events_default'::regclass"
    with database.read() as connection:
        return connection.exec_driver_sql(query).first() is not None


def test_a_partition_does_not_wait_for_a_long_read(postgres_database: Database) -> None:
    """While the default partition is read, making another one gives up by itself, and may be tried again."""
    with reading_default(postgres_database), pytest.raises(DatabaseUnavailable, match="lock timeout"):
        within(WAIT_SECONDS_MAX, lambda: make_partitions(postgres_database, NEW_YEAR))

    assert make_partitions(postgres_database, NEW_YEAR) == []


def test_sqlite_has_none(sqlite_database: Database) -> None:
    """On SQLite there is nothing to make."""
    assert make_partitions(sqlite_database, NEW_YEAR) == []
