"""Closed months: closed once, and from then on what comes to them counts when it is posted."""

import threading
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from meter.core.audit import Signature
from meter.core.errors import Conflict
from meter.core.events import UsageEvent
from meter.core.months import parse_month
from meter.core.reports import Question
from meter.core.rollup import Sums, fold
from meter.store import ledger, months, reports
from meter.store.database import Database
from tests.store.conftest import NOW, make_event, new_event_id, random_event, second
from tests.store.test_ledger import count, lines

OCTOBER = parse_month("2026-10")
NOVEMBER = parse_month("2026-11")
WAIT_SECONDS_MAX = 20.0
RANDOM = Random(1)
FINANCE = Signature("finance@host", NOW)


def event_of(month: datetime, **fields: object) -> UsageEvent:
    """Make an event of some instant of a month."""
    started_at = month + timedelta(seconds=RANDOM.randrange(28 * 24 * 3600))
    return make_event(new_event_id(RANDOM, started_at), started_at=started_at, **fields)


def sums_of(database: Database, since: datetime, until: datetime, *by: str) -> Sums:
    """Return the total of a report."""
    return reports.answer(database, Question(by=by, since=since, until=until, tz=UTC)).total


def test_a_month_is_closed_once(database: Database) -> None:
    """Closing again is refused, saying since when and by whom, and changes nothing."""
    closed = months.close(database, OCTOBER, FINANCE)

    with pytest.raises(Conflict, match="closed already, since 2026-11-23T12:34Z, by finance@host"):
        months.close(database, OCTOBER, Signature("somebody", NOW))

    assert months.list_all(database) == [closed]
    assert (closed.month, closed.closed_at, closed.closed_by) == (OCTOBER.start, NOW, "finance@host")


def test_months_are_listed_in_order(database: Database) -> None:
    """Months may be closed in any order, and are listed in their own."""
    for text in ("2026-09", "2026-02", "2026-10"):
        months.close(database, parse_month(text), FINANCE)

    assert [month.label for month in months.list_all(database)] == ["2026-02", "2026-09", "2026-10"]


@pytest.mark.parametrize("by", [("model",), ("user",)])
def test_a_late_event_counts_in_the_open_month(database: Database, by: tuple[str, ...]) -> None:
    """What comes after the close is in no report of the closed month, and a correction in the open one."""
    early, late = event_of(OCTOBER.start, cost=5), event_of(OCTOBER.start, cost=7, prompt_tokens=3)
    ledger.append(database, [early], NOW)
    months.close(database, OCTOBER, FINANCE)

    ledger.append(database, [late, event_of(NOVEMBER.start, cost=11)], NOW)

    october = sums_of(database, OCTOBER.start, OCTOBER.end, *by)
    november = sums_of(database, NOVEMBER.start, NOVEMBER.end, *by)
    assert (october.requests, october.cost, october.corrections) == (1, 5, 0)
    assert (november.requests, november.cost) == (2, 18)
    assert (november.corrections, november.correction_cost) == (1, 7)
    assert ledger.find(database, late.event_id) == fold_at(late, NOW)
    assert ledger.verify(database) == []


def fold_at(event: UsageEvent, posted_at: datetime) -> UsageEvent:
    """Return an event as it is counted at its posting."""
    values = {name: getattr(event, name) for name in UsageEvent.__struct_fields__}
    return UsageEvent(**values | {"counted_at": posted_at})


def test_a_second_delivery_after_the_close_changes_nothing(database: Database) -> None:
    """What was counted before the close is not counted again when it comes again, alone or in company."""
    counted = [event_of(OCTOBER.start, cost=5) for _ in range(3)]
    ledger.append(database, counted, NOW)
    months.close(database, OCTOBER, FINANCE)
    before = lines(database)
    late = event_of(OCTOBER.start, cost=7)

    assert ledger.append(database, counted, NOW) == 0
    assert lines(database) == before
    assert ledger.append(database, [*counted, late], NOW) == 1
    assert ledger.append(database, [late], NOW + timedelta(days=9)) == 0

    assert lines(database) == fold([*counted, fold_at(late, NOW)])
    assert ledger.verify(database) == []


def test_another_month_is_left_alone(database: Database) -> None:
    """The months before and after a closed one count as ever, to the microsecond."""
    months.close(database, OCTOBER, FINANCE)
    instant = timedelta(microseconds=1)
    edges = (OCTOBER.start - instant, OCTOBER.start, OCTOBER.end - instant, OCTOBER.end)
    events = [make_event(new_event_id(RANDOM), started_at=edge) for edge in edges]

    ledger.append(database, events, NOW)

    found = [ledger.find(database, event.event_id) for event in events]
    assert [event and event.counted_at for event in found] == [None, NOW, NOW, None]


@pytest.mark.parametrize("shippers", [3])
def test_closing_while_events_arrive(database: Database, shippers: int) -> None:
    """Whatever is appended while a month closes counts before or after it, and nothing in between."""
    random = Random(3)
    batches = [
        [random_event(random, OCTOBER.start, OCTOBER.end) for _ in range(20)] for _ in range(shippers * 15)
    ]
    started = threading.Barrier(shippers + 1)
    faults: list[Exception] = []

    def ship(opened: Database, mine: list[list[UsageEvent]]) -> None:
        try:
            started.wait(WAIT_SECONDS_MAX)
            for batch in mine:
                ledger.append(opened, batch, NOW)
        except Exception as fault:
            faults.append(fault)
            raise
        finally:
            opened.dispose()

    threads = [
        threading.Thread(target=ship, args=(second(database), batches[number::shippers]))
        for number in range(shippers)
    ]
    for thread in threads:
        thread.start()
    started.wait(WAIT_SECONDS_MAX)
    months.close(database, OCTOBER, FINANCE)
    at_close = sums_of(database, OCTOBER.start, OCTOBER.end)
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)

    assert faults == []
    assert sums_of(database, OCTOBER.start, OCTOBER.end) == at_close
    assert count(database) == sum(map(len, batches))
    assert at_close.requests + sums_of(database, NOVEMBER.start, NOVEMBER.end).corrections == count(database)
    assert ledger.verify(database) == []


def test_a_close_waits_for_who_appends(postgres_database: Database) -> None:
    """A transaction that has not committed yet, and saw the month open, is waited for."""
    other = second(postgres_database)
    closed = threading.Event()

    def close() -> None:
        months.close(other, OCTOBER, FINANCE)
        closed.set()

    thread = threading.Thread(target=close)
    with postgres_database.write() as connection:
        ledger.post(postgres_database, connection, [event_of(OCTOBER.start, cost=5)], NOW)
        thread.start()
        waited = not closed.wait(0.3)
    thread.join(WAIT_SECONDS_MAX)
    other.dispose()

    assert waited
    assert closed.is_set()
    assert sums_of(postgres_database, OCTOBER.start, OCTOBER.end).cost == 5
