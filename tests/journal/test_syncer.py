"""The syncer: in order, together what piled up, and never again what failed."""

import os
import threading
from collections.abc import Iterator

import pytest

from meter.journal.storage import Storage
from meter.journal.syncer import Syncer
from tests.journal.conftest import WAIT_SECONDS_MAX, broken, until


class Bench:
    """A syncer over a storage that only notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.synced: list[int] = []
        self.failed: list[int] = []
        self.bad: set[int] = set()
        self.going = threading.Event()
        self.going.set()
        self.reached = threading.Event()
        storage = Storage(create=os.path.getsize, write=os.write, sync=self._sync, close=self._close)
        self.syncer = Syncer(
            storage,
            synced=self.synced.append,
            failed=lambda descriptor, _fault: self.failed.append(descriptor),
        )

    def _sync(self, descriptor: int) -> None:
        self.calls.append(("sync", descriptor))
        self.reached.set()
        assert self.going.wait(WAIT_SECONDS_MAX)
        if descriptor in self.bad:
            raise broken()

    def _close(self, descriptor: int) -> None:
        self.calls.append(("close", descriptor))
        if descriptor in self.bad:
            raise broken()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Give a syncer at work, and end it."""
    made = Bench()
    yield made
    made.going.set()
    made.syncer.close()


def test_a_request_is_answered(bench: Bench) -> None:
    """After a sync its number is told."""
    bench.syncer.request(5, 1)
    until(lambda: bench.synced)

    assert (bench.calls, bench.synced) == ([("sync", 5)], [1])


def test_what_piles_up_is_synced_together(bench: Bench) -> None:
    """Requests that come during a sync share the next one, which answers for the last of them."""
    bench.going.clear()
    bench.syncer.request(5, 1)
    assert bench.reached.wait(WAIT_SECONDS_MAX)
    for number in range(2, 50):
        bench.syncer.request(5, number)

    bench.going.set()
    until(lambda: 49 in bench.synced)

    assert bench.calls == [("sync", 5)] * 2
    assert bench.synced == [1, 49]


def test_files_are_synced_in_order_and_closed_after_their_last_sync(bench: Bench) -> None:
    """A file that nothing more is written to is synced, closed, and only then comes the next one."""
    bench.going.clear()
    bench.syncer.request(5, 1)
    assert bench.reached.wait(WAIT_SECONDS_MAX)
    bench.syncer.request(5, 2, last=True)
    bench.syncer.request(6, 3)

    bench.going.set()
    until(lambda: 3 in bench.synced)

    assert bench.calls == [("sync", 5), ("sync", 5), ("close", 5), ("sync", 6)]
    assert bench.synced == [1, 2, 3]


def test_a_file_that_failed_is_never_synced_again(bench: Bench) -> None:
    """Its failure is told once, later requests for it are passed over, and it is closed at the end."""
    bench.bad.add(5)
    bench.syncer.request(5, 1)
    until(lambda: bench.failed)

    bench.syncer.request(5, 2)
    bench.syncer.request(5, 3, last=True)
    bench.syncer.request(6, 4)
    until(lambda: bench.synced)

    assert bench.calls == [("sync", 5), ("close", 5), ("sync", 6)]
    assert (bench.failed, bench.synced) == ([5], [4])


def test_a_number_that_is_used_again_is_another_file(bench: Bench) -> None:
    """The system gives a closed file's number to the next one, which nothing is wrong with."""
    bench.bad.add(5)
    bench.syncer.request(5, 1, last=True)
    until(lambda: ("close", 5) in bench.calls)
    bench.bad.clear()

    bench.syncer.request(5, 2)
    until(lambda: bench.synced)

    assert bench.synced == [2]


def test_closing_finishes_what_was_asked_for(bench: Bench) -> None:
    """What was requested before the end is synced before it."""
    for number in range(1, 4):
        bench.syncer.request(number, number, last=True)

    bench.syncer.close()

    assert bench.synced == [1, 2, 3]
    assert [call for call in bench.calls if call[0] == "close"] == [("close", 1), ("close", 2), ("close", 3)]
