"""The journal of one process: what it is about to do, how far it got, and what came of it.

An intent is written before an attempt's first byte goes upstream and a settle before its response ends, each
by one write. A process that is killed in between leaves an open intent behind, and whoever adopts the journal
makes an event of it. With durability `power` a settle also waits until it survives a power cut, and an intent
does soon after, without anybody waiting.

Everything here runs on the event loop's thread, but for the syncer's answers, which come in over `call_soon`.
"""

import asyncio
import errno
import logging
import sys
from collections import deque
from collections.abc import Callable

import msgspec

from meter.core.attempts import Attempt
from meter.core.events import UsageEvent
from meter.journal.folder import Folder, Position
from meter.journal.records import Intent, Progress, Record, Settle, decode, encode
from meter.journal.segment import Frame, frame, scan
from meter.journal.storage import Storage
from meter.journal.syncer import Syncer

SEGMENT_BYTES_MAX = 64 << 20
# What is written but not synced is kept in memory, to be written anew if its file fails.
UNSYNCED_BYTES_MAX = 1 << 20
RETRY_SECONDS = 0.5
# An intent that no settle's sync takes along is synced after this, and nobody waits for it.
INTENT_SYNC_SECONDS = 0.02
# The number of a record that has not been written.
_UNWRITTEN = sys.maxsize
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


# Structs rather than named tuples: a few of them are made a request, each in a quarter of the time.
class _Written(msgspec.Struct, frozen=True, gc=False):
    number: int
    frame: bytes
    descriptor: int


class _Settling(msgspec.Struct, frozen=True):
    number: int
    event_id: str
    future: asyncio.Future[None]


class Journal:
    """The writing end of one folder, whose lock the caller holds."""

    def __init__(
        self,
        folder: Folder,
        storage: Storage,
        *,
        power: bool,
        bytes_max: int,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._storage = storage
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        # One value, so that another thread never sees half of a change.
        self.position = Position(max(folder.segments(), default=0), 0)
        """The place behind the last record."""
        self.settles = 0
        """How many settles have been written; one that had to be written anew counts again."""
        self._bytes = folder.size_bytes()
        self._number = 0
        self._unsynced: deque[_Written] = deque()
        self._unsynced_bytes = 0
        self._settling: deque[_Settling] = deque()
        self._stranded: deque[bytes] = deque()
        self._failing = False
        self._open: dict[str, int] = {}
        self._sync_asked = False
        self._sync_planned = False
        self._syncer: Syncer | None = None
        if power:
            self._syncer = Syncer(storage, synced=self._on_synced, failed=self._on_sync_failed)
        self._begin_segment()

    @property
    def open_from(self) -> int:
        """The first segment that holds an intent whose settle could still be lost, or the current one."""
        return min(self._open.values(), default=self.position.segment)

    @property
    def open_intents(self) -> int:
        """How many attempts are under way, or have a settle that could still be lost."""
        return len(self._open)

    @property
    def usable(self) -> bool:
        """Whether records reach the disk."""
        return not self._failing

    @property
    def fullness(self) -> float:
        """How much of its room the journal takes; from 1 on no new attempts may begin."""
        return self._bytes / self._bytes_max

    def admits(self) -> bool:
        """Say whether a new attempt may begin."""
        return not self._failing and self._bytes < self._bytes_max

    def intent(self, attempt: Attempt) -> None:
        """Write that an attempt is about to begin; raises `OSError` where that cannot be written."""
        # An intent without room is given up, not kept for later: its attempt does not begin.
        if self._stranded or not self._write(frame(encode(Intent(attempt)))):
            self._fail()
            raise OSError("the journal takes no records")
        self._open[attempt.event_id] = self.position.segment
        if self._syncer is not None and not self._sync_planned:
            self._sync_planned = True
            self._loop.call_later(INTENT_SYNC_SECONDS, self._sync_intents, self._syncer)

    def progress(self, event_id: str, emitted_tokens: int) -> None:
        """Write how far a stream has come."""
        self._append(Progress(event_id, emitted_tokens))

    def settle(self, event: UsageEvent) -> asyncio.Future[None]:
        """Write an attempt's event; the future is done when the event survives what it has to."""
        written = self._append(Settle(event))
        self.settles += 1
        future: asyncio.Future[None] = self._loop.create_future()
        if written:
            self._settling.append(_Settling(self._number, event.event_id, future))
            self._secure()
        else:
            # Without room there is nothing to wait for: the record is kept in memory until there is.
            future.set_result(None)
            self._settling.append(_Settling(_UNWRITTEN, event.event_id, future))
        self._settled()
        return future

    def forget(self, bytes_freed: int) -> None:
        """Take note that shipped segments were deleted."""
        self._bytes -= bytes_freed

    def close(self) -> None:
        """Sync and close the file; what found no room on disk is lost now, and said."""
        if self._stranded:
            self._rewrite_stranded()
        if self._stranded:
            log.error("%d records of the journal found no room on disk and are lost", len(self._stranded))
        self._retire()
        if self._syncer is not None:
            self._syncer.close()

    def _append(self, record: Record) -> bool:
        """Write a record, or keep it until there is room; returns whether it was written."""
        framed = frame(encode(record))
        if not self._stranded and self._write(framed):
            return True
        self._strand(framed)
        return False

    def _write(self, framed: bytes) -> bool:
        """Write one frame, in a new segment if this one is full or takes no more."""
        if self.position.offset >= self._segment_bytes_max:
            self._retire()
        return self._write_to_file(framed) or self._write_to_file(framed)

    def _write_to_file(self, framed: bytes) -> bool:
        """Write one frame to the current file, or to a new one where there is none."""
        if self._descriptor is None:
            self._begin_segment()
        descriptor = self._descriptor
        if descriptor is None:
            return False
        try:
            taken = self._storage.write(descriptor, framed)
        except OSError as fault:
            log.warning("segment %d takes no records: %s", self.position.segment, fault)
            # An empty file on a full disk is as good as any other one.
            if self.position.offset or fault.errno not in _NO_ROOM:
                self._retire()
            return False
        if taken < len(framed):
            log.warning("segment %d took %d bytes of %d", self.position.segment, taken, len(framed))
            self._mend(descriptor)
            return False
        position = self.position
        self.position = Position(position.segment, position.offset + taken)
        self._bytes += taken
        self._number += 1
        if self._syncer is not None:
            self._unsynced.append(_Written(self._number, framed, descriptor))
            self._unsynced_bytes += taken
            if self._unsynced_bytes > UNSYNCED_BYTES_MAX:
                self._request_sync(self._syncer)
        return True

    def _mend(self, descriptor: int) -> None:
        """Take a part of a record off again, and leave the file alone."""
        try:
            self._storage.truncate(descriptor, self.position.offset)
        except OSError as fault:
            log.warning("segment %d ends with a part of a record: %s", self.position.segment, fault)
        self._retire()

    def _request_sync(self, syncer: Syncer) -> None:
        """Ask for a sync at the end of this turn of the loop, for all that is written in it."""
        if not self._sync_asked:
            self._sync_asked = True
            self._loop.call_soon(self._sync_turn, syncer)

    def _sync_turn(self, syncer: Syncer) -> None:
        self._sync_asked = False
        if self._descriptor is not None:
            syncer.request(self._descriptor, self._number)

    def _sync_intents(self, syncer: Syncer) -> None:
        self._sync_planned = False
        if self._unsynced:
            self._request_sync(syncer)

    def _begin_segment(self) -> None:
        number = self.position.segment + 1
        try:
            self._descriptor = self._storage.create(self._folder.segment(number))
        except OSError as fault:
            log.warning("no new segment can be made: %s", fault)
            return
        self.position = Position(number, 0)

    def _retire(self) -> None:
        """Write no more to the current file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._syncer is not None:
            self._syncer.request(descriptor, self._number, last=True)
        else:
            self._storage.close(descriptor)

    def _strand(self, framed: bytes) -> None:
        """Keep a record that found no room, and try again until it does."""
        self._stranded.append(framed)
        self._fail()

    def _fail(self) -> None:
        if not self._failing:
            log.error("the journal has no room: new requests are refused until it has")
            self._failing = True
            self._loop.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        if self._stranded:
            self._rewrite_stranded()
        elif self._descriptor is None:
            self._begin_segment()
        self._failing = bool(self._stranded) or self._descriptor is None
        if self._failing:
            self._loop.call_later(RETRY_SECONDS, self._retry)
        else:
            log.warning("the journal has room again")

    def _rewrite_stranded(self) -> None:
        while self._stranded and self._write(self._stranded[0]):
            self._stranded.popleft()
        if not self._stranded:
            self._renumber(self._number)
            self._secure()
        self._settled()

    def _renumber(self, number: int) -> None:
        """Take note that the settles that could be lost are only safe with this record."""
        self._settling = deque(
            msgspec.structs.replace(settling, number=number) for settling in self._settling
        )

    def _secure(self) -> None:
        """Have what was written survive what it has to."""
        if self._syncer is None:
            self._synced(self._number)
        else:
            self._request_sync(self._syncer)

    def _on_synced(self, number: int) -> None:
        self._loop.call_soon_threadsafe(self._synced, number)

    def _on_sync_failed(self, descriptor: int, fault: OSError) -> None:
        self._loop.call_soon_threadsafe(self._sync_failed, descriptor, fault)

    def _synced(self, number: int) -> None:
        unsynced, settling = self._unsynced, self._settling
        while unsynced and unsynced[0].number <= number:
            self._unsynced_bytes -= len(unsynced.popleft().frame)
        while settling and settling[0].number <= number:
            settled = settling.popleft()
            self._open.pop(settled.event_id, None)
            _finish(settled)

    def _sync_failed(self, descriptor: int, fault: OSError) -> None:
        """Write what a file may have lost anew, in another one: its next sync could not be believed."""
        log.error("a segment could not be synced: %s; its records are written anew", fault)
        if descriptor == self._descriptor:
            self._retire()
        lost = [written.frame for written in self._unsynced if written.descriptor == descriptor]
        kept = [written for written in self._unsynced if written.descriptor != descriptor]
        self._unsynced = deque(kept)
        self._unsynced_bytes = sum(len(written.frame) for written in kept)
        # The first copies can still be read, and are shipped as well.
        self.settles += sum(_settles(framed) for framed in lost)
        for framed in lost:
            if self._stranded or not self._write(framed):
                self._strand(framed)
        if self._stranded:
            self._renumber(_UNWRITTEN)
            for settling in self._settling:
                _finish(settling)
        else:
            # Those who wait do so for the new copies, which come after everything else.
            self._renumber(self._number)
            self._secure()


def _settles(framed: bytes) -> int:
    found = (decode(each.payload) for each in scan(framed) if isinstance(each, Frame))
    return sum(isinstance(record, Settle) for record in found)


def _finish(settling: _Settling) -> None:
    if not settling.future.done():
        settling.future.set_result(None)
