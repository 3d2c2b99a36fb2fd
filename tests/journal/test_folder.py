"""A journal's folder: whose it is, how far it was shipped, and what can be read of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meter.journal.folder import BEGINNING, CURSOR, LOCK, Cursor, Entry, Folder, Lost, Position
from meter.journal.records import Record
from meter.journal.recovery import folders
from meter.journal.segment import frame
from meter.journal.storage import sync_folder
from tests.journal.conftest import intent, make_folder, progress, settle, write_segment

RECORDS: list[Record] = [intent(1), progress(1, 7), settle(1), intent(2), settle(2)]
TRY_TO_LOCK = """
import sys
from pathlib import Path
from meter.journal.folder import Folder
print("free" if Folder(Path(sys.argv[1])).lock() is not None else "held")
"""


def lock_elsewhere(folder: Folder) -> str:
    """Try to lock a folder in another process."""
    command = [sys.executable, "-c", TRY_TO_LOCK, str(folder.path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def records(
    folder: Folder, start: Position = BEGINNING.shipped, end: Position | None = None
) -> list[Record | None]:
    """Return what can be read."""
    return [entry.record for entry in folder.entries(start, end) if isinstance(entry, Entry)]


def lost(folder: Folder) -> list[Lost]:
    """Return what cannot be read."""
    return [entry for entry in folder.entries(BEGINNING.shipped) if isinstance(entry, Lost)]


def test_the_lock_is_exclusive(folder: Folder) -> None:
    """While one process holds the lock no other gets it, nor the same one again; afterwards one does."""
    held = folder.lock()
    assert held is not None

    again, elsewhere = folder.lock(), lock_elsewhere(folder)
    os.close(held)

    assert (again, elsewhere) == (None, "held")
    assert lock_elsewhere(folder) == "free"


def test_a_folder_is_seen_locked_or_not_at_all(tmp_path: Path) -> None:
    """A new folder gets its name when its lock is held, so that nobody adopts it in between."""
    draft = make_folder(tmp_path, ".being-made")

    folder, lock = Folder.claim(tmp_path / "holder")

    assert [found.path for found in folders(tmp_path)] == [folder.path]
    assert folder.lock() is None
    assert draft.path.exists()
    os.close(lock)


def test_a_folder_survives_a_power_cut_before_anything_is_in_it(tmp_path: Path) -> None:
    """Its final name is synced, and the name of the folder that all journals are in."""
    root = tmp_path / "data" / "journal"
    root.mkdir(parents=True)
    synced: list[tuple[Path, list[str]]] = []

    def sync(path: Path) -> None:
        sync_folder(path)
        synced.append((path, [each.name for each in path.iterdir()]))

    _, lock = Folder.claim(root / "holder", sync)
    os.close(lock)

    assert synced == [(root, ["holder"]), (root.parent, ["journal"])]


def test_the_cursor_is_kept(folder: Folder) -> None:
    """What was written is read, and no draft of it is left."""
    folder.write_cursor(Cursor(Position(3, 400), 2))
    folder.write_cursor(Cursor(Position(4, 0), 4))

    assert folder.read_cursor() == Cursor(Position(4, 0), 4)
    assert sorted(path.name for path in folder.path.iterdir()) == [CURSOR]


def test_a_cursor_that_was_not_finished_changes_nothing(folder: Folder) -> None:
    """A draft that a killed process left behind is not read."""
    folder.write_cursor(Cursor(Position(3, 400), 2))

    (folder.path / f"{CURSOR}.new").write_text("9 9")

    assert folder.read_cursor() == Cursor(Position(3, 400), 2)


@pytest.mark.parametrize("text", ["", "1", "1 2", "1 2 3 4", "a b c", "\x00" * 9])
def test_an_unreadable_cursor_is_the_beginning(folder: Folder, text: str) -> None:
    """Where nobody knows how far records were shipped, all of them are shipped again."""
    (folder.path / CURSOR).write_text(text)

    assert folder.read_cursor() == BEGINNING


def test_records_come_in_order_over_all_segments(folder: Folder) -> None:
    """Segments are read by their numbers, from any record on to any other, and gaps are no matter."""
    first = write_segment(folder, 9, *RECORDS[:2])
    second = write_segment(folder, 10, *RECORDS[2:4])
    write_segment(folder, 12, RECORDS[4])

    assert records(folder) == RECORDS
    assert records(folder, Position(9, first[0])) == RECORDS[1:]
    assert records(folder, Position(9, first[1])) == RECORDS[2:]
    assert records(folder, Position(10, 0), Position(10, second[0])) == [RECORDS[2]]
    assert records(folder, Position(9, 0), Position(10, 0)) == RECORDS[:2]


def test_every_entry_says_where_it_ends(folder: Folder) -> None:
    """Reading on from behind any entry gives the rest."""
    write_segment(folder, 1, *RECORDS[:3])
    write_segment(folder, 2, *RECORDS[3:])

    behind = [entry.behind for entry in folder.entries(BEGINNING.shipped) if isinstance(entry, Entry)]

    assert [records(folder, place) for place in behind] == [RECORDS[at + 1 :] for at in range(len(RECORDS))]


@pytest.mark.parametrize("place", [Position(1, 10**6), Position(2, 0), Position(7, 7)])
def test_nothing_is_behind_the_end(folder: Folder, place: Position) -> None:
    """A place that was lost with the end of a file is a place with nothing behind it."""
    write_segment(folder, 1, *RECORDS)

    assert list(folder.entries(place)) == []


@pytest.mark.parametrize("read_bytes", [1, 13, 100, 400, 10**6])
def test_blocks_of_any_size_give_the_same(folder: Folder, read_bytes: int) -> None:
    """A record that is longer than a block is read all the same, and so is what stands behind damage."""
    ends = write_segment(folder, 1, *RECORDS)
    data = bytearray(folder.segment(1).read_bytes())
    data[ends[1] + 20] ^= 0xFF
    folder.segment(1).write_bytes(bytes(data) + frame(b"torn")[:-1])

    small = Folder(folder.path, read_bytes=read_bytes)

    assert records(small) == RECORDS[:2] + RECORDS[3:]
    stretches = [(found.damage.start, found.damage.end, found.damage.torn) for found in lost(small)]
    assert stretches == [(ends[1], ends[2], False), (ends[4], ends[4] + len(frame(b"torn")) - 1, True)]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa4type\xa1z", b"\xff" * 40, b"\x91" * 5000])
def test_a_whole_record_of_no_known_kind_is_lost(folder: Folder, payload: bytes) -> None:
    """What a checksum vouches for and this version cannot read is set aside, and what follows is read."""
    before = write_segment(folder, 1, RECORDS[0])[0]
    with folder.segment(1).open("ab") as file:
        file.write(frame(payload))
    after = folder.segment(1).stat().st_size
    write_segment(folder, 2, RECORDS[1])

    assert records(folder) == RECORDS[:2]
    assert [(found.damage.start, found.damage.end, found.raw) for found in lost(folder)] == [
        (before, after, payload)
    ]


def test_a_folder_knows_its_size(folder: Folder) -> None:
    """Only segments count."""
    assert folder.size_bytes() == 0

    ends = write_segment(folder, 1, *RECORDS)
    (folder.path / LOCK).write_text("locked")

    assert folder.size_bytes() == ends[-1]
    assert folder.segments() == [1]
