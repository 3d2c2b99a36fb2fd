"""The writing end: what is on the disk after which call, and what becomes of it when the disk fails."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import pytest

from meter.journal.backlog import Backlog, left_open
from meter.journal.folder import BEGINNING, Entry, Folder, Position
from meter.journal.journal import INTENT_SYNC_SECONDS, Journal
from meter.journal.records import Record
from meter.journal.segment import frame
from meter.journal.storage import DISK, Storage
from tests.journal.conftest import (
    WAIT_SECONDS_MAX,
    Disk,
    broken,
    event_id,
    eventually,
    intent,
    make_attempt,
    make_settled,
    no_space,
    progress,
    settle,
)

Open = Callable[..., AbstractAsyncContextManager[Journal]]


@pytest.fixture
def opened(folder: Folder, disk: Disk) -> Open:
    """Give what opens a journal on the disk with switches, and closes it."""

    @asynccontextmanager
    async def opening(*, power: bool = False, **options: int) -> AsyncIterator[Journal]:
        journal = Journal(folder, disk.storage, power=power, **{"bytes_max": 1 << 30} | options)  # type: ignore[arg-type]
        try:
            yield journal
        finally:
            disk.syncing.set()
            journal.close()

    return opening


def records(folder: Folder) -> list[Record | None]:
    """Return the records on the disk."""
    return [entry.record for entry in folder.entries(BEGINNING.shipped) if isinstance(entry, Entry)]


@contextmanager
def one_more_descriptor() -> Iterator[None]:
    """Let this process open one file and no second one."""
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def finished(future: asyncio.Future[None]) -> None:
    """Wait for a settle to be safe."""
    await asyncio.wait_for(future, WAIT_SECONDS_MAX)


@pytest.mark.parametrize("power", [False, True])
def test_what_is_written_is_on_the_disk_at_once(folder: Folder, opened: Open, power: bool) -> None:
    """After each call its record can be read, and the position stands behind it."""

    async def run() -> None:
        async with opened(power=power) as journal:
            journal.intent(make_attempt(1))
            assert records(folder) == [intent(1)]
            assert journal.open_intents == 1
            journal.progress(event_id(1), 7)
            assert records(folder) == [intent(1), progress(1, 7)]
            await finished(journal.settle(make_settled(1)))
            assert records(folder) == [intent(1), progress(1, 7), settle(1)]
            assert journal.position == Position(1, folder.segment(1).stat().st_size)
            assert (journal.open_intents, journal.settles) == (0, 1)

    asyncio.run(run())


def test_a_settle_is_safe_at_once_where_only_the_process_may_die(opened: Open, disk: Disk) -> None:
    """With durability `crash` nobody waits, and nothing is synced."""

    async def run() -> None:
        async with opened() as journal:
            journal.intent(make_attempt(1))
            assert journal.settle(make_settled(1)).done()

    asyncio.run(run())

    assert disk.synced == []


def test_a_settle_waits_for_its_sync(opened: Open, disk: Disk) -> None:
    """With durability `power` a settle is not safe before a sync that began after it has returned."""

    async def run() -> None:
        async with opened(power=True) as journal:
            disk.syncing.clear()
            journal.intent(make_attempt(1))
            journal.intent(make_attempt(2))
            first, second = journal.settle(make_settled(1)), journal.settle(make_settled(2))
            done, _ = await asyncio.wait([first, second], timeout=0.05)
            assert not done
            assert journal.open_intents == 2

            disk.syncing.set()
            await finished(second)
            assert first.done()
            assert journal.open_intents == 0

    asyncio.run(run())


def test_an_intent_is_synced_soon_and_nobody_waits(opened: Open, disk: Disk) -> None:
    """Without a settle to take it along, an intent has one sync of its own."""

    async def run() -> None:
        async with opened(power=True) as journal:
            journal.intent(make_attempt(1))
            journal.intent(make_attempt(2))
            assert disk.synced == []
            await eventually(lambda: disk.synced)
            journal.progress(event_id(1), 7)
            await asyncio.sleep(3 * INTENT_SYNC_SECONDS)
            assert disk.synced == disk.created
            assert journal.open_intents == 2

            journal.intent(make_attempt(3))
            await eventually(lambda: len(disk.synced) == 2)

    asyncio.run(run())


def test_an_intent_that_a_settle_took_along_needs_no_sync(opened: Open, disk: Disk) -> None:
    """Where syncs come often enough by themselves, intents cost none."""

    async def run() -> None:
        async with opened(power=True) as journal:
            journal.intent(make_attempt(1))
            await finished(journal.settle(make_settled(1)))
            await asyncio.sleep(3 * INTENT_SYNC_SECONDS)
            assert disk.synced == disk.created

    asyncio.run(run())


@pytest.mark.parametrize("fault", [0, 1, 11, no_space(), broken()])
def test_a_write_that_fails_is_made_in_the_next_segment(
    folder: Folder, opened: Open, disk: Disk, fault: OSError | int
) -> None:
    """A write that is refused, or cut anywhere, retires its segment; the record is whole in the next one."""

    async def run() -> None:
        async with opened() as journal:
            journal.intent(make_attempt(1))
            disk.write_faults.append(fault)
            journal.settle(make_settled(1))
            assert journal.usable
            assert journal.position.segment == 2

    asyncio.run(run())

    assert records(folder) == [intent(1), settle(1)]
    assert disk.closed == disk.created


def test_a_file_whose_sync_failed_is_left_alone(folder: Folder, opened: Open, disk: Disk) -> None:
    """Its records are written anew elsewhere and synced there; it is never synced again, only closed."""

    async def run() -> None:
        async with opened(power=True) as journal:
            disk.sync_faults.append(broken())
            journal.intent(make_attempt(1))
            await finished(journal.settle(make_settled(1)))
            await eventually(lambda: disk.closed)
            assert journal.usable

    asyncio.run(run())

    first, second = disk.created
    assert disk.synced.count(first) == 1
    assert second in disk.synced
    assert records(Folder(folder.path)) == [intent(1), settle(1)] * 2


def test_only_what_was_not_synced_is_written_anew(folder: Folder, opened: Open, disk: Disk) -> None:
    """What an earlier sync made safe is not repeated, and what came after the failed one is not forgotten."""

    async def run() -> None:
        async with opened(power=True) as journal:
            journal.intent(make_attempt(1))
            await finished(journal.settle(make_settled(1)))
            disk.syncing.clear()
            disk.sync_faults.append(broken())
            journal.intent(make_attempt(2))
            second = journal.settle(make_settled(2))
            journal.intent(make_attempt(3))
            third = journal.settle(make_settled(3))
            disk.syncing.set()
            await finished(second)
            await finished(third)

    asyncio.run(run())

    again = [entry.record for entry in folder.entries(Position(2, 0)) if isinstance(entry, Entry)]
    assert again == [intent(2), settle(2), intent(3), settle(3)]


def test_without_room_attempts_are_refused_and_settles_kept(folder: Folder, opened: Open, disk: Disk) -> None:
    """A full disk refuses what would begin, lets finish what runs, and all of it lands when there is room."""

    async def run() -> None:
        async with opened() as journal:
            journal.intent(make_attempt(1))
            disk.full = True
            with pytest.raises(OSError, match="takes no records"):
                journal.intent(make_attempt(2))
            assert not journal.usable
            assert not journal.admits()
            journal.progress(event_id(1), 7)
            assert journal.settle(make_settled(1)).done()
            assert records(folder) == [intent(1)]

            disk.full = False
            await eventually(journal.admits)
            assert records(folder) == [intent(1), progress(1, 7), settle(1)]
            journal.intent(make_attempt(3))

    asyncio.run(run())

    assert records(folder)[-1] == intent(3)


def test_settles_without_room_keep_their_intents_in_sight(folder: Folder, opened: Open, disk: Disk) -> None:
    """While a settle is only in memory its intent counts as open, so that a kill makes an event of it."""

    async def run() -> None:
        async with opened(segment_bytes_max=1) as journal:
            journal.intent(make_attempt(1))
            journal.intent(make_attempt(2))
            backlog = Backlog(folder, end=lambda: journal.position, open_from=lambda: journal.open_from)
            disk.full = True
            journal.settle(make_settled(1))
            batch = backlog.take(10)
            assert batch is not None
            backlog.acknowledge(batch)
            # Here the process might be killed.
            assert [event.event_id for event in left_open(folder)] == [event_id(1), event_id(2)]

            disk.full = False
            await eventually(lambda: journal.usable)
            assert [event.event_id for event in left_open(folder)] == [event_id(2)]
            assert journal.open_intents == 1

    asyncio.run(run())


def test_a_settle_that_is_not_synced_keeps_its_intent_in_sight(opened: Open, disk: Disk) -> None:
    """As long as a power cut could take a settle, the cursor must not pass its intent."""

    async def run() -> None:
        async with opened(power=True, segment_bytes_max=1) as journal:
            journal.intent(make_attempt(1))
            disk.syncing.clear()
            safe = journal.settle(make_settled(1))
            assert (journal.position.segment, journal.open_from) == (2, 1)

            disk.syncing.set()
            await finished(safe)
            assert journal.open_from == 2

    asyncio.run(run())


def test_a_settle_whose_file_fails_without_room_waits_for_nothing(
    folder: Folder, opened: Open, disk: Disk
) -> None:
    """A failed sync on a full disk lets the client go; the record lands and is synced when there is room."""

    async def run() -> None:
        async with opened(power=True) as journal:
            disk.syncing.clear()
            disk.sync_faults.append(broken())
            journal.intent(make_attempt(1))
            safe = journal.settle(make_settled(1))
            disk.full = True
            disk.syncing.set()
            await finished(safe)
            assert not journal.usable
            assert journal.open_intents == 1

            disk.full = False
            await eventually(lambda: journal.usable and not journal.open_intents)

    asyncio.run(run())

    assert records(folder)[-2:] == [intent(1), settle(1)]


def test_a_full_disk_is_not_littered(folder: Folder, opened: Open, disk: Disk) -> None:
    """Attempt after attempt on a full disk makes one empty file, not one each."""

    async def run() -> None:
        async with opened() as journal:
            journal.intent(make_attempt(0))
            disk.full = True
            for number in range(1, 20):
                with pytest.raises(OSError, match="takes no records"):
                    journal.intent(make_attempt(number))

    asyncio.run(run())

    assert folder.segments() == [1, 2]


def test_a_journal_that_cannot_make_files_recovers(folder: Folder, opened: Open, disk: Disk) -> None:
    """Without a first file intents are refused, and accepted as soon as one can be made."""

    async def run() -> None:
        disk.create_fault = no_space()
        async with opened() as journal:
            with pytest.raises(OSError, match="takes no records"):
                journal.intent(make_attempt(1))
            disk.create_fault = None
            await eventually(journal.admits)
            journal.intent(make_attempt(2))

    asyncio.run(run())

    assert records(folder) == [intent(2)]


def test_a_name_whose_folder_cannot_be_synced_is_free_again(folder: Folder) -> None:
    """A file that was made and may not survive a power cut is taken away, or its name would be in the way."""
    path = folder.segment(1)

    with one_more_descriptor(), pytest.raises(OSError, match="Too many open files"):
        DISK.create(path)

    assert not path.exists()
    os.close(DISK.create(path))


def test_a_journal_is_capped(opened: Open) -> None:
    """From its size on nothing new may begin; shipped segments that were deleted make room again."""

    async def run() -> None:
        async with opened(bytes_max=1000) as journal:
            journal.intent(make_attempt(1))
            assert 0 < journal.fullness < 1
            assert journal.admits()
            while journal.fullness < 1:
                journal.progress(event_id(1), 7)
            assert journal.usable
            assert not journal.admits()

            journal.forget(500)
            assert journal.admits()

    asyncio.run(run())


def test_what_a_journal_holds_already_counts(folder: Folder, opened: Open) -> None:
    """A journal goes on behind the segments that are there, and they count towards its size."""
    folder.segment(4).write_bytes(frame(b"x" * 100))

    async def run() -> None:
        async with opened(bytes_max=1000) as journal:
            assert journal.position == Position(5, 0)
            assert journal.fullness > 0.1

    asyncio.run(run())


@pytest.mark.parametrize("power", [False, True])
def test_segments_are_rotated(folder: Folder, opened: Open, disk: Disk, power: bool) -> None:
    """A full segment is closed, and synced before where power may fail; the next record opens another."""

    async def run() -> None:
        async with opened(power=power, segment_bytes_max=300) as journal:
            for number in range(1, 10):
                journal.intent(make_attempt(number))
                journal.settle(make_settled(number))

    asyncio.run(run())

    written: list[Record] = []
    for number in range(1, 10):
        written += [intent(number), settle(number)]
    assert records(folder) == written
    assert len(disk.created) > 3
    assert len(disk.closed) == len(disk.created)
    assert set(disk.synced) == (set(disk.created) if power else set())


def test_the_oldest_open_intent_is_known(opened: Open) -> None:
    """No segment from that of the oldest open intent on may be forgotten."""

    async def run() -> None:
        async with opened(segment_bytes_max=1) as journal:
            assert journal.open_from == 1
            journal.intent(make_attempt(1))
            journal.intent(make_attempt(2))
            journal.settle(make_settled(1))
            assert (journal.open_from, journal.position.segment) == (2, 3)
            journal.settle(make_settled(2))
            assert journal.open_from == journal.position.segment == 4

    asyncio.run(run())


def test_closing_writes_what_found_no_room_before(folder: Folder, opened: Open, disk: Disk) -> None:
    """What is kept in memory gets a last chance."""

    async def run() -> None:
        async with opened() as journal:
            journal.intent(make_attempt(1))
            disk.full = True
            journal.settle(make_settled(1))
            disk.full = False

    asyncio.run(run())

    assert records(folder) == [intent(1), settle(1)]
    assert disk.closed == disk.created


def test_closing_without_room_says_what_is_lost(
    folder: Folder, opened: Open, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A settle that never found room is lost with the process, loudly, and its intent is still open."""

    async def run() -> Journal:
        async with opened() as journal:
            journal.intent(make_attempt(1))
            disk.full = True
            journal.settle(make_settled(1))
        return journal

    journal = asyncio.run(run())

    assert "1 records of the journal found no room" in caplog.text
    assert journal.open_intents == 1
    assert [event.event_id for event in left_open(folder)] == [event_id(1)]


def test_told_of_every_settle(folder: Folder) -> None:
    """Whoever ships is told of every settle, when it can already be read."""
    seen: list[int] = []

    async def run() -> None:
        storage: Storage = DISK
        journal = Journal(
            folder, storage, power=False, bytes_max=1 << 30, settled=lambda: seen.append(len(records(folder)))
        )
        journal.intent(make_attempt(1))
        journal.settle(make_settled(1))
        journal.close()

    asyncio.run(run())

    assert seen == [2]
