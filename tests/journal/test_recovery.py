"""Journals of the dead: shipped, closed up, and each event once however often that is done."""

import os
from pathlib import Path

import pytest

from meter.core.attempts import interrupted
from meter.journal.folder import CURSOR, Cursor, Folder, Position
from meter.journal.quarantine import FILE
from meter.journal.records import Record
from meter.journal.recovery import KEPT_SECONDS, adopt, prune, prune_segments, unshipped
from meter.journal.shipper import Abandoned
from tests.journal.conftest import (
    Books,
    Impatient,
    event_id,
    intent,
    make_attempt,
    make_delivery,
    make_folder,
    make_settled,
    progress,
    quarantined,
    settle,
    write_segment,
)

LIFE: list[Record] = [intent(1), intent(2), progress(2, 7), settle(1), progress(2, 9), intent(3)]
EVENTS = {
    event_id(1): make_settled(1),
    event_id(2): interrupted(make_attempt(2), 9),
    event_id(3): interrupted(make_attempt(3), 0),
}
NOW = 1_800_000_000.0


class Killed(BaseException):
    """The adopting process dies."""


def age(path: Path, seconds: float) -> None:
    """Make a file look as old as that at `NOW`."""
    os.utime(path, (NOW - seconds, NOW - seconds))


def test_settles_are_shipped_and_open_intents_closed_up(tmp_path: Path) -> None:
    """Each attempt has one event: its own, or an interrupted one of its prompt and what was noted last."""
    folder = make_folder(tmp_path, "dead", *LIFE)
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.events == EVENTS
    assert len(books.deliveries) == 3
    assert folder.done.exists()
    assert quarantined(tmp_path) == []


def test_what_had_been_shipped_is_not_shipped_again(tmp_path: Path) -> None:
    """The dead process's cursor says where to go on, and from where on intents may be open."""
    folder = make_folder(tmp_path, "dead", intent(1), settle(1))
    write_segment(folder, 2, intent(2), settle(2), intent(3))
    folder.write_cursor(Cursor(Position(2, 0), 2))
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.deliveries == [event_id(2), event_id(3)]


def test_a_journal_that_is_held_is_left_alone(tmp_path: Path) -> None:
    """As long as its process lives nobody reads a journal, also if it is paused; afterwards somebody does."""
    folder = make_folder(tmp_path, "alive", *LIFE)
    lock = folder.lock()
    assert lock is not None
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))
    left_alone = not books.calls and not folder.done.exists()
    os.close(lock)
    adopt(tmp_path, make_delivery(tmp_path, books))

    assert left_alone
    assert books.events == EVENTS


def test_a_finished_journal_is_finished(tmp_path: Path) -> None:
    """What was adopted is not read again, and its lock is free."""
    folder = make_folder(tmp_path, "dead", *LIFE)
    books = Books()
    adopt(tmp_path, make_delivery(tmp_path, books))
    calls = books.calls

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.calls == calls
    lock = folder.lock()
    assert lock is not None
    os.close(lock)


def test_adopted_twice_it_gives_the_same_events(tmp_path: Path) -> None:
    """From the same files come the same events, so that the ledger counts each once."""
    folder = make_folder(tmp_path, "dead", *LIFE)
    first, second = Books(), Books()

    adopt(tmp_path, make_delivery(tmp_path, first))
    folder.done.unlink()
    (folder.path / CURSOR).unlink()
    adopt(tmp_path, make_delivery(tmp_path, second))

    assert first.events == second.events == EVENTS


def test_an_adoption_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    """Whoever dies while adopting leaves the journal to the next one, with nothing lost."""
    make_folder(tmp_path, "dead", *LIFE)
    books = Books()

    def die(_events: object, /) -> int:
        raise Killed

    delivery = make_delivery(tmp_path, books)
    with pytest.raises(Killed):
        adopt(tmp_path, type(delivery)(**vars(delivery) | {"sink": die}))
    adopt(tmp_path, delivery)

    assert books.events == EVENTS


def test_an_adoption_is_abandoned_when_the_process_ends(tmp_path: Path) -> None:
    """With the ledger away nothing is marked as finished."""
    folder = make_folder(tmp_path, "dead", *LIFE)
    abandoned = Impatient()
    abandoned.set()

    with pytest.raises(Abandoned):
        adopt(tmp_path, make_delivery(tmp_path, Books([ConnectionError("away")]), abandoned))

    assert not folder.done.exists()


def test_a_torn_last_record_is_no_obstacle(tmp_path: Path) -> None:
    """A settle that was cut in the writing leaves its attempt interrupted; the torn bytes are put aside."""
    folder = make_folder(tmp_path, "dead", intent(1))
    whole = folder.segment(1).stat().st_size
    write_segment(folder, 1, intent(1), settle(1))
    data = folder.segment(1).read_bytes()[:-1]
    folder.segment(1).write_bytes(data)
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.events == {event_id(1): interrupted(make_attempt(1), 0)}
    (line,) = quarantined(tmp_path)
    assert (line["reason"], line["start"], line["end"]) == ("torn", whole, len(data))


def test_damage_is_quarantined_and_the_rest_shipped(tmp_path: Path) -> None:
    """A damaged settle is put aside, its attempt becomes interrupted, and all others are as they were."""
    folder = make_folder(tmp_path, "dead")
    ends = write_segment(folder, 1, intent(1), intent(2), settle(1), settle(2))
    data = bytearray(folder.segment(1).read_bytes())
    data[ends[1] + 20] ^= 0xFF
    folder.segment(1).write_bytes(data)
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.events == {event_id(1): interrupted(make_attempt(1), 0), event_id(2): make_settled(2)}
    assert [(line["reason"], line["holder"]) for line in quarantined(tmp_path)] == [("damaged", "dead")]


def test_one_journal_that_cannot_be_read_keeps_no_other(tmp_path: Path) -> None:
    """Where one folder is unreadable, those behind it are adopted all the same."""
    bad = make_folder(tmp_path, "a-bad")
    (bad.path / "not-a-number.log").touch()
    good = make_folder(tmp_path, "b-good", *LIFE)
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert books.events == EVENTS
    assert (bad.done.exists(), good.done.exists()) == (False, True)


def test_folders_of_the_volume_are_left_alone(tmp_path: Path) -> None:
    """What a file system keeps beside the journals is neither adopted nor deleted."""
    theirs = tmp_path / "lost+found"
    theirs.mkdir()
    good = make_folder(tmp_path, "good", *LIFE)

    adopt(tmp_path, make_delivery(tmp_path, Books()))
    prune(tmp_path, now=good.done.stat().st_mtime + 2 * KEPT_SECONDS)

    assert list(theirs.iterdir()) == []
    assert not good.path.exists()


def test_journals_of_several_dead_processes(tmp_path: Path) -> None:
    """All of them are adopted, also a copy of one from another server; files beside them are no journals."""
    for number, holder in enumerate(["a", "b", "c"], 1):
        make_folder(tmp_path, holder, intent(number), settle(number))
    make_folder(tmp_path, "copy-of-a", intent(1), settle(1))
    (tmp_path / FILE).touch()
    books = Books()

    adopt(tmp_path, make_delivery(tmp_path, books))

    assert sorted(books.events) == [event_id(1), event_id(2), event_id(3)]


@pytest.mark.parametrize(("seconds", "kept"), [(KEPT_SECONDS - 1, True), (KEPT_SECONDS + 1, False)])
def test_finished_journals_are_kept_for_a_day(tmp_path: Path, seconds: float, kept: bool) -> None:
    """A finished journal is deleted a day after it was; one that is not finished never is."""
    finished, unfinished = make_folder(tmp_path, "finished", *LIFE), make_folder(tmp_path, "open", *LIFE)
    finished.done.touch()
    age(finished.done, seconds)
    age(unfinished.segment(1), 10 * KEPT_SECONDS)

    prune(tmp_path, now=NOW)

    assert (finished.path.exists(), unfinished.path.exists()) == (kept, True)


@pytest.mark.parametrize(("pressed", "left"), [(False, [2, 3, 4]), (True, [3, 4])])
def test_shipped_segments_are_kept_for_a_day_unless_room_is_short(
    folder: Folder, pressed: bool, left: list[int]
) -> None:
    """Of a living journal old segments go that were shipped, and where room is short also young ones."""
    size = write_segment(folder, 1, *LIFE)[-1]
    for number in (2, 3, 4):
        write_segment(folder, number, *LIFE)
    for number, seconds in ((1, KEPT_SECONDS + 1), (2, 60), (3, KEPT_SECONDS + 1), (4, 0)):
        age(folder.segment(number), seconds)

    freed = prune_segments(folder, before=3, now=NOW, pressed=pressed)

    assert folder.segments() == left
    assert freed == size * (4 - len(left))


def test_what_is_late_is_said(tmp_path: Path) -> None:
    """Events that the ledger should have had long ago are counted by journal; those of finished ones not."""
    make_folder(tmp_path, "late", intent(1), settle(1), settle(2), intent(3))
    make_folder(tmp_path, "finished", settle(1)).done.touch()
    make_folder(tmp_path, "empty")

    assert unshipped(tmp_path, older_than_seconds=10**12) == []
    assert unshipped(tmp_path, older_than_seconds=-(10**12)) == [
        "journal late: 2 settled events are not in the ledger"
    ]
