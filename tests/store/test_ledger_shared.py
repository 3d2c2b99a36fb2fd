"""Several writers of one ledger: whoever comes first, every event counts once, and nobody waits for ever."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from random import Random

import pytest
import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.core.rollup import fold
from meter.store import ledger
from meter.store.database import Database, RowRefused
from meter.store.tables import usage_events
from tests.store.conftest import NOW, make_event, new_event_id, random_event, second
from tests.store.test_ledger import count, lines

WRITERS = 4
WAIT_SECONDS_MAX = 60.0


class Writers:
    """Threads that deliver batches, each with connections of its own, like servers."""

    def __init__(self, database: Database, deliveries: Sequence[Sequence[Sequence[UsageEvent]]]) -> None:
        self.appended = 0
        self.faults: list[Exception] = []
        self._lock = threading.Lock()
        self._gate = threading.Barrier(len(deliveries))
        threads = [
            threading.Thread(target=self._deliver, args=(second(database), batches)) for batches in deliveries
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS_MAX)

    def _deliver(self, database: Database, batches: Sequence[Sequence[UsageEvent]]) -> None:
        try:
            self._gate.wait(WAIT_SECONDS_MAX)
            for batch in batches:
                appended = ledger.append(database, batch, NOW)
                with self._lock:
                    self.appended += appended
        except Exception as fault:
            self.faults.append(fault)
            raise
        finally:
            database.dispose()


def made(total: int, seed: int = 1) -> list[UsageEvent]:
    """Make events that share few lines of the rollup, so that writers meet."""
    random = Random(seed)
    return [random_event(random, NOW - timedelta(minutes=40), NOW) for _ in range(total)]


def cut(events: Sequence[UsageEvent], size: int) -> Iterator[Sequence[UsageEvent]]:
    """Cut events into batches."""
    for at in range(0, len(events), size):
        yield events[at : at + size]


def assert_counted_once(database: Database, writers: Writers, events: Sequence[UsageEvent]) -> None:
    """Every event is there, was reported as new once, and is in the rollup once."""
    assert writers.faults == []
    assert writers.appended == count(database) == len(events)
    assert lines(database) == fold(events)
    assert ledger.verify(database) == []


def test_the_same_batch_from_all(database: Database) -> None:
    """A batch that all deliver at once is one batch."""
    events = made(400)

    writers = Writers(database, [[events]] * WRITERS)

    assert_counted_once(database, writers, events)


def test_overlapping_batches(database: Database) -> None:
    """Of batches that overlap, every event is appended by one of them."""
    events = made(1000)
    windows = [events[at : at + 400] for at in (0, 200, 400, 600)]

    writers = Writers(database, [[window] for window in windows])

    assert_counted_once(database, writers, events)


def test_different_batches(database: Database) -> None:
    """Writers with events of their own fold into the same lines, and no addition is lost."""
    events = made(2000)

    writers = Writers(database, [list(cut(part, 50)) for part in cut(events, 500)])

    assert_counted_once(database, writers, events)


@pytest.mark.parametrize("seed", range(3))
def test_opposite_orders_do_not_lock_each_other_out(database: Database, seed: int) -> None:
    """Writers that deliver the same events in other orders never wait for each other in a circle."""
    events = made(600, seed)
    backwards = events[::-1]
    shuffled = Random(seed).sample(events, len(events))

    writers = Writers(
        database, [list(cut(order, 60)) for order in (events, backwards, shuffled, shuffled[::-1])]
    )

    assert_counted_once(database, writers, events)


UNFIT: dict[str, dict[str, object]] = {
    "a lone surrogate": {"model_requested": "\ud800"},
    "a lone surrogate in a tag": {"tags": ("\ud800",)},
    "a count too large": {"prompt_tokens": 2**63},
}
# SQLite's columns have no lengths, and its text may hold anything.
UNFIT_FOR_POSTGRES: dict[str, dict[str, object]] = UNFIT | {
    "a name too long": {"key_id": "k" * 33},
    "a NUL in a name": {"model_requested": "a\x00b"},
    "a status too large": {"status": 2**31},
}


@pytest.mark.parametrize("fault", UNFIT_FOR_POSTGRES)
def test_a_row_that_postgres_does_not_take(postgres_database: Database, fault: str) -> None:
    """An event that the database will never take is told from a database that is away."""
    refused_alone_and_in_company(postgres_database, UNFIT_FOR_POSTGRES[fault])


@pytest.mark.parametrize("fault", UNFIT)
def test_a_row_that_sqlite_does_not_take(sqlite_database: Database, fault: str) -> None:
    """The same on SQLite, which takes more."""
    refused_alone_and_in_company(sqlite_database, UNFIT[fault])


def refused_alone_and_in_company(database: Database, fields: dict[str, object]) -> None:
    """Check that such an event is refused, that nothing is left of its batch, and that others get in."""
    random = Random(1)
    good, bad = make_event(new_event_id(random)), make_event(new_event_id(random), **fields)

    for batch in ([bad], [good, bad], [bad, good]):
        with pytest.raises(RowRefused):
            ledger.append(database, batch, NOW)

    assert count(database) == 0
    assert ledger.append(database, [good], NOW) == 1


def test_what_is_missing_is_refused(database: Database) -> None:
    """An event without what the ledger requires is refused, not left out."""
    bad = make_event(new_event_id(Random(1)), key_id=None)

    with pytest.raises(RowRefused):
        ledger.append(database, [bad], NOW)


def test_nothing_is_left_of_the_staging(database: Database) -> None:
    """The table on which a batch waits is gone afterwards, and its rows with it."""
    for batch in cut(made(30), 10):
        ledger.append(database, batch, NOW)

    with database.write() as connection:
        names = sa.inspect(connection).get_temp_table_names()
        assert connection.scalar(sa.select(sa.func.count()).select_from(usage_events)) == 30
    assert names == []
