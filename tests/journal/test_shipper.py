"""Delivery: every event lands, whatever the ledger does, and nothing is forgotten where it cannot."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from meter.core.events import UsageEvent
from meter.journal import shipper
from meter.journal.backlog import Backlog
from meter.journal.folder import Folder
from meter.journal.quarantine import FILE
from meter.journal.shipper import Abandoned, Delivery, Shipper
from tests.journal.conftest import (
    Books,
    Impatient,
    event_id,
    intent,
    make_delivery,
    make_settled,
    quarantined,
    settle,
    until,
    write_segment,
)

Start = Callable[..., Shipper]


class Gate(threading.Event):
    """A ledger that does not answer until it is told to."""

    def hold(self, _events: object, /) -> int:
        """Keep whoever delivers waiting."""
        self.wait()
        return 0


@pytest.fixture
def start(folder: Folder) -> Iterator[Start]:
    """Give what starts a shipper on the folder, and ends it."""
    started: list[Shipper] = []

    def starting(delivery: Delivery, **work: Callable[[], None]) -> Shipper:
        chores = {"adopt": lambda: None, "upkeep": lambda: None} | work
        made = Shipper(Backlog(folder), delivery, holder=folder.holder, **chores)
        started.append(made)
        made.start()
        return made

    yield starting
    for each in started:
        each.close(0)


def ids(count: int) -> list[str]:
    """Return the ids of the first attempts."""
    return [event_id(number) for number in range(count)]


@pytest.mark.parametrize("commits_first", [False, True])
def test_a_ledger_that_fails_gets_everything_in_the_end(tmp_path: Path, commits_first: bool) -> None:
    """A delivery is made again until it goes well, also where nobody knows whether it was committed."""
    books = Books([ConnectionError("away")] * 4)
    books.commits_first = commits_first
    events = [make_settled(number) for number in range(10)]

    make_delivery(tmp_path, books).deliver(events)

    assert books.events == {event.event_id: event for event in events}
    assert books.calls == 5
    assert len(books.deliveries) == (50 if commits_first else 10)


def test_pauses_grow_up_to_a_bound(tmp_path: Path) -> None:
    """A ledger that is away is not asked more often than every few seconds."""
    abandoned = Impatient()

    make_delivery(tmp_path, Books([ConnectionError("away")] * 9), abandoned).deliver([make_settled(1)])

    assert abandoned.pauses[:3] == [0.75 * seconds for seconds in (0.1, 0.2, 0.4)]
    assert abandoned.pauses[-2:] == [0.75 * shipper.RETRY_SECONDS_MAX] * 2


@pytest.mark.parametrize("bad", [0, 1, 249, 250, 499])
def test_one_refused_event_costs_no_other(tmp_path: Path, bad: int) -> None:
    """Of five hundred events, of which the ledger refuses one, 499 land once, and one is quarantined."""
    books = Books(refused=[event_id(bad)])

    make_delivery(tmp_path, books).deliver([make_settled(number) for number in range(500)])

    assert sorted(books.deliveries) == [each for each in ids(500) if each != event_id(bad)]
    assert [line["event"]["event_id"] for line in quarantined(tmp_path)] == [event_id(bad)]
    assert quarantined(tmp_path)[0]["reason"] == "a row is wrong"
    assert books.calls < 25


def test_refusals_and_faults_together(tmp_path: Path) -> None:
    """Where the ledger also goes away between the halves, each event still has one place."""
    books = Books([ConnectionError("away")] * 3, refused=ids(40)[::13])

    make_delivery(tmp_path, books).deliver([make_settled(number) for number in range(40)])

    refused = {line["event"]["event_id"] for line in quarantined(tmp_path)}
    assert refused == set(ids(40)[::13])
    assert refused | set(books.events) == set(ids(40))
    assert not refused & set(books.events)


def test_nothing_to_deliver_asks_nobody(tmp_path: Path) -> None:
    """An empty batch is no reason to open a transaction."""
    books = Books()

    make_delivery(tmp_path, books).deliver([])

    assert books.calls == 0


def test_a_delivery_is_abandoned_when_the_process_ends(tmp_path: Path) -> None:
    """Whoever waits for the ledger at the end gives up, after one attempt."""
    abandoned = Impatient()
    abandoned.set()
    books = Books([ConnectionError("away")] * 9)

    with pytest.raises(Abandoned):
        make_delivery(tmp_path, books, abandoned).deliver([make_settled(1)])

    assert books.calls == 1


def test_the_thread_ships_what_is_there_and_what_comes(folder: Folder, tmp_path: Path, start: Start) -> None:
    """What lay there is shipped at the start, and what comes later when the thread is woken."""
    write_segment(folder, 1, intent(0), settle(0))
    books = Books()
    started = start(make_delivery(tmp_path, books))
    until(lambda: started.shipped == 1)

    write_segment(folder, 2, intent(1), settle(1))
    started.wake()
    until(lambda: started.shipped == 2)

    assert books.deliveries == ids(2)
    assert started.close(1)


def test_what_comes_meanwhile_waits_for_company(folder: Folder, tmp_path: Path, start: Start) -> None:
    """What is written while a batch is delivered is no batch of its own at once: more may come."""
    write_segment(folder, 1, settle(0))
    books, times = Books(), list[float]()

    def busy(events: Sequence[UsageEvent], /) -> int:
        if not times:
            write_segment(folder, 2, settle(1))
            made.wake()
        times.append(time.monotonic())
        return books(events)

    delivery = dataclasses.replace(make_delivery(tmp_path, books), sink=busy)
    made = Shipper(Backlog(folder), delivery, holder="holder", adopt=lambda: None, upkeep=lambda: None)
    made.start()
    until(lambda: made.shipped == 2)

    assert made.close(1)
    assert books.deliveries == ids(2)
    assert times[1] - times[0] >= shipper.LINGER_SECONDS_MIN


def test_closing_ships_what_is_left(folder: Folder, tmp_path: Path, start: Start) -> None:
    """What was written last is shipped before the thread ends, without a wake."""
    books = Books()
    started = start(make_delivery(tmp_path, books))
    write_segment(folder, 1, settle(0))

    assert started.close(20)

    assert books.deliveries == ids(1)


def test_what_was_abandoned_is_still_there(folder: Folder, tmp_path: Path, start: Start) -> None:
    """A batch that the ledger never took is not shipped, and whoever comes next takes it."""
    write_segment(folder, 1, settle(0), settle(1))
    away = Books([ConnectionError("away")] * 10**5)
    started = start(make_delivery(tmp_path, away, threading.Event()))
    until(lambda: away.calls)

    everything = started.close(0)

    assert not everything
    assert started.shipped == 0
    batch = Backlog(folder).take(10)
    assert batch is not None
    assert [event.event_id for event in batch.events] == ids(2)


def test_the_end_waits_for_no_answer(folder: Folder, tmp_path: Path, start: Start) -> None:
    """Where the ledger does not answer at all at the end, what waits for it is ended."""
    write_segment(folder, 1, settle(0))
    asked, hung_up = threading.Event(), threading.Event()

    def deaf(_events: object, /) -> int:
        asked.set()
        assert hung_up.wait(60)
        raise ConnectionError("hung up")

    delivery = dataclasses.replace(make_delivery(tmp_path, Books(), threading.Event()), sink=deaf)
    started = start(delivery, give_up=hung_up.set)
    assert asked.wait(20)

    assert not started.close(0)

    assert hung_up.is_set()


def test_damage_in_the_own_journal_is_quarantined(folder: Folder, tmp_path: Path, start: Start) -> None:
    """What cannot be read is put aside once, and what stands around it is shipped."""
    ends = write_segment(folder, 1, settle(0), settle(1), settle(2))
    data = bytearray(folder.segment(1).read_bytes())
    data[ends[1] - 1] ^= 0xFF
    folder.segment(1).write_bytes(data)
    books = Books()

    started = start(make_delivery(tmp_path, books))
    until(lambda: started.shipped == 2)

    assert books.deliveries == [event_id(0), event_id(2)]
    assert [(line["holder"], line["start"]) for line in quarantined(tmp_path)] == [("holder", ends[0])]


def test_a_shipment_that_fails_is_made_again(folder: Folder, tmp_path: Path, start: Start) -> None:
    """A disk that takes no quarantine stops the round, not the thread: nothing is lost by it."""
    write_segment(folder, 1, settle(0), settle(1))
    (tmp_path / FILE).mkdir()
    books = Books(refused=[event_id(0)])
    started = start(make_delivery(tmp_path, books))
    until(lambda: books.calls)

    (tmp_path / FILE).rmdir()
    started.wake()
    until(lambda: started.shipped == 2)

    assert set(books.events) == {event_id(1)}
    assert [line["event"]["event_id"] for line in quarantined(tmp_path)] == [event_id(0)]


def test_chores_that_fail_stop_nothing(folder: Folder, tmp_path: Path, start: Start) -> None:
    """Adoption and upkeep may fail; this process's events are shipped all the same."""
    done: list[str] = []

    def fail() -> None:
        done.append("adopt")
        raise RuntimeError("no such thing")

    books = Books()
    started = start(make_delivery(tmp_path, books), adopt=fail, upkeep=lambda: done.append("upkeep"))
    until(lambda: len(done) == 2)
    write_segment(folder, 1, settle(0))
    started.wake()
    until(lambda: started.shipped == 1)

    assert done == ["adopt", "upkeep"]


def test_the_lag_is_since_all_had_been_shipped(folder: Folder, tmp_path: Path, start: Start) -> None:
    """While the ledger does not answer the lag grows; once everything is shipped it is small again."""
    write_segment(folder, 1, settle(0))
    gate = Gate()
    books = make_delivery(tmp_path, Books())
    held = Delivery(
        sink=gate.hold, refusal=books.refusal, quarantine=books.quarantine, abandoned=threading.Event()
    )
    started = start(held)
    until(lambda: started.lag_seconds > 0.05)

    gate.set()
    until(lambda: started.shipped == 1)

    until(lambda: started.lag_seconds < 0.05)


@pytest.mark.parametrize(("cpu_seconds", "expected"), [(0.0, 0.02), (0.0012, 0.12), (1.0, 0.5)])
def test_batches_grow_with_what_a_round_takes(cpu_seconds: float, expected: float) -> None:
    """The dearer a round was, the longer the next one waits for company, within bounds."""
    assert shipper.linger_seconds(cpu_seconds) == pytest.approx(expected)
