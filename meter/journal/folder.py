"""One journal's folder: `<root>/<holder>/<number>.log`, a lock, and how far its records were shipped.

The holder's lock says whose it is: as long as the process lives nobody else touches the folder, and once it
is gone whoever takes the lock may finish its work.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from meter.journal.records import Record, decode
from meter.journal.segment import Damage, Frame, scan
from meter.journal.storage import sync_folder

LOCK = "lock"
CURSOR = "cursor"
DONE = "done"
# What the name of a folder begins with until its holder has the lock.
DRAFT = "."

READ_BYTES = 4 << 20


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in a journal: the segment's number and the offset of a record in it."""

    segment: int
    offset: int


class Cursor(NamedTuple):
    """What is settled up to here has been shipped; no open intent stands before `open_from`."""

    shipped: Position
    open_from: int


class Lost(NamedTuple):
    """A stretch of a segment that cannot be read."""

    segment: int
    damage: Damage
    raw: bytes


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record, or `None` for one that nobody wants to read, and the place behind it."""

    record: Record | None
    behind: Position


# Reads a record; raises `ValueError` for what no version of meter has written.
Read = Callable[[bytes], Record | None]


BEGINNING = Cursor(Position(0, 0), 0)


class Folder:
    """Paths and small files of one journal."""

    def __init__(self, path: Path, *, read_bytes: int = READ_BYTES) -> None:
        self.path = path
        self._read_bytes = read_bytes

    @classmethod
    def claim(cls, path: Path, sync: Callable[[Path], None] = sync_folder) -> tuple[Self, int]:
        """Make a folder and take its lock before anybody can see it; returns both."""
        draft = cls(path.with_name(DRAFT + path.name))
        draft.path.mkdir(mode=0o700)
        lock = draft.lock()
        if lock is None:
            raise BlockingIOError(errno.EWOULDBLOCK, "somebody else has the lock", str(draft.path))
        draft.path.rename(path)
        # What is synced into a folder whose own name a power cut takes away would be lost with it.
        for folder in (path.parent, path.parent.parent):
            sync(folder)
        return cls(path), lock

    @property
    def holder(self) -> str:
        """The name of whoever writes here."""
        return self.path.name

    def segment(self, number: int) -> Path:
        """Return the path of a segment."""
        return self.path / f"{number:08d}.log"

    def segments(self) -> list[int]:
        """Return the numbers of the segments that exist, in order."""
        return sorted(int(path.stem) for path in self.path.glob("*.log"))

    def size_bytes(self) -> int:
        """Return how much the segments take."""
        return sum(self.segment(number).stat().st_size for number in self.segments())

    def lock(self) -> int | None:
        """Take the lock for as long as the returned descriptor is open; `None` where somebody has it."""
        descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def read_cursor(self) -> Cursor:
        """Return how far records were shipped; unreadable is the beginning, as twice is no harm."""
        try:
            segment, offset, open_from = map(int, (self.path / CURSOR).read_text().split())
        except (OSError, ValueError):
            return BEGINNING
        return Cursor(Position(segment, offset), open_from)

    def write_cursor(self, cursor: Cursor) -> None:
        """Remember how far records have been shipped."""
        draft = self.path / f"{CURSOR}.new"
        draft.write_text(f"{cursor.shipped.segment} {cursor.shipped.offset} {cursor.open_from}\n")
        draft.replace(self.path / CURSOR)

    @property
    def done(self) -> Path:
        """The file whose presence says that nothing is left to ship."""
        return self.path / DONE

    def entries(
        self, start: Position, end: Position | None = None, read: Read = decode
    ) -> Iterator[Entry | Lost]:
        """Yield the records from a place on, in order, up to a place or to the end of what is there."""
        for number in self.segments():
            if number < start.segment or (end is not None and number > end.segment):
                continue
            offset = start.offset if number == start.segment else 0
            limit = end.offset if end is not None and number == end.segment else None
            for data, base in self._blocks(self.segment(number), offset, limit):
                for found in scan(data):
                    yield _entry(number, base, data, found, read)

    def _blocks(self, path: Path, offset: int, limit: int | None) -> Iterator[tuple[bytes, int]]:
        """Yield a file in blocks that end with a record, but for the last one, each with its place."""
        with path.open("rb") as file:
            size_now = os.fstat(file.fileno()).st_size
            end = size_now if limit is None else min(limit, size_now)
            size = self._read_bytes
            while offset < end:
                file.seek(offset)
                data = file.read(min(size, end - offset))
                is_last = offset + len(data) >= end
                used = len(data) if is_last else _whole(data)
                if not used:
                    size *= 2
                    continue
                yield data[:used], offset
                offset += used
                size = self._read_bytes


def _entry(number: int, base: int, data: bytes, found: Frame | Damage, read: Read) -> Entry | Lost:
    if isinstance(found, Damage):
        return Lost(number, _moved(found, base), data[found.start : found.end])
    try:
        return Entry(read(found.payload), Position(number, base + found.end))
    except ValueError:
        # Whole on disk, and still nothing that this version can read.
        return Lost(number, Damage(base + found.start, base + found.end, torn=False), found.payload)


def _moved(damage: Damage, base: int) -> Damage:
    return Damage(base + damage.start, base + damage.end, damage.torn)


def _whole(data: bytes) -> int:
    """Return where the last whole record ends: what is behind it may go on in the next block."""
    ends = [found.end for found in scan(data) if not isinstance(found, Damage)]
    return ends[-1] if ends else 0
