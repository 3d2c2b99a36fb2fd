"""A journal as the server opens it: claimed, shipped, and marked as finished only when nothing is left."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from meter.journal.folder import Folder
from meter.journal.holding import Holding, Ledger, Options
from meter.journal.shipper import Sink
from meter.journal.storage import DISK, Storage
from tests.journal.conftest import (
    WAIT_SECONDS_MAX,
    Books,
    Disk,
    Refused,
    broken,
    event_id,
    eventually,
    intent,
    make_attempt,
    make_folder,
    make_settled,
    settle,
)


def open_holding(root: Path, books: Sink, storage: Storage = DISK, *, power: bool = False) -> Holding:
    """Open a journal of that name."""
    options = Options(root, "holder", power, 1 << 30, storage)
    return Holding(options, ledger=Ledger(books, Refused), upkeep=lambda: None)


def lead(root: Path, books: Sink, life: Callable[[Holding], None], disk: Disk | None = None) -> Folder:
    """Open a journal, do something with it, close it; returns its folder."""

    async def run() -> None:
        holding = open_holding(root, books, DISK if disk is None else disk.storage)
        life(holding)
        holding.close()

    asyncio.run(run())
    return Folder(root / "holder")


def attempt(holding: Holding) -> None:
    """Make an attempt that goes well."""
    holding.journal.intent(make_attempt(1))
    holding.journal.settle(make_settled(1))


def test_a_settled_event_reaches_the_ledger(tmp_path: Path) -> None:
    """An event is shipped while the server runs, and is waiting until it was."""
    books = Books()

    async def run() -> None:
        holding = open_holding(tmp_path, books, power=True)
        holding.journal.intent(make_attempt(1))
        await asyncio.wait_for(holding.journal.settle(make_settled(1)), WAIT_SECONDS_MAX)
        await eventually(lambda: not holding.waiting)
        holding.close()

    asyncio.run(run())

    assert books.events == {event_id(1): make_settled(1)}
    assert (tmp_path / "holder" / "done").exists()


def test_a_settle_that_is_written_anew_waits_for_nothing(tmp_path: Path, disk: Disk) -> None:
    """Where a sync fails both copies are shipped, and then nothing waits, nor less than nothing."""
    disk.sync_faults.append(broken())

    async def run() -> None:
        holding = open_holding(tmp_path, Books(), disk.storage, power=True)
        holding.journal.intent(make_attempt(1))
        await asyncio.wait_for(holding.journal.settle(make_settled(1)), WAIT_SECONDS_MAX)
        await eventually(lambda: holding.shipper.shipped == 2)
        assert holding.waiting == 0
        holding.close()

    asyncio.run(run())


def test_closing_ships_the_rest(tmp_path: Path) -> None:
    """What was settled last is in the ledger when the journal is closed, which is then finished."""
    books = Books()

    folder = lead(tmp_path, books, attempt)

    assert books.deliveries == [event_id(1)]
    assert folder.done.exists()
    assert folder.lock() is not None


def test_an_open_attempt_is_left_for_the_next_server(tmp_path: Path) -> None:
    """A journal with an attempt that was not settled is not finished."""
    folder = lead(tmp_path, Books(), lambda holding: holding.journal.intent(make_attempt(1)))

    assert not folder.done.exists()


def test_a_settle_without_room_is_left_for_the_next_server(tmp_path: Path, disk: Disk) -> None:
    """Where the disk was full to the end, the next server makes the event from the intent."""

    def life(holding: Holding) -> None:
        holding.journal.intent(make_attempt(1))
        disk.full = True
        holding.journal.settle(make_settled(1))

    folder = lead(tmp_path, Books(), life, disk)

    assert not folder.done.exists()


def test_the_journals_of_the_dead_are_adopted(tmp_path: Path) -> None:
    """A server that starts finishes what others left, but not what is only being made."""
    dead = make_folder(tmp_path, "dead", intent(5), settle(5))
    draft = make_folder(tmp_path, ".being-made")
    books = Books()

    async def run() -> None:
        holding = open_holding(tmp_path, books)
        await eventually(dead.done.exists)
        holding.close()

    asyncio.run(run())

    assert books.deliveries == [event_id(5)]
    assert not draft.done.exists()
