"""What of a folder's settles has not been shipped yet, in the order in which it was written."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from meter.core.attempts import Attempt, interrupted
from meter.core.events import UsageEvent
from meter.journal.folder import Cursor, Entry, Folder, Lost, Position
from meter.journal.records import Intent, Progress, Settle, decode_settle

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Settled events, what could not be read between them, and the place behind the last record."""

    events: list[UsageEvent]
    lost: list[Lost]
    behind: Position


class Backlog:
    """The reading end of a folder; used by one thread."""

    def __init__(
        self,
        folder: Folder,
        *,
        end: Callable[[], Position | None] = lambda: None,
        open_from: Callable[[], int] = lambda: 0,
    ) -> None:
        self._folder = folder
        self._end = end
        self._open_from = open_from
        self._cursor = folder.read_cursor()
        self._read = self._cursor.shipped
        self._entries: Iterator[Entry | Lost] = iter(())

    @property
    def cursor(self) -> Cursor:
        """How far records have been shipped."""
        return self._cursor

    def take(self, events_max: int) -> Batch | None:
        """Read on; `None` where nothing is left. What is taken has to be acknowledged in order."""
        batch = Batch([], [], self._read)
        while len(batch.events) < events_max:
            entry = self._next()
            if entry is None:
                break
            if isinstance(entry, Lost):
                batch.lost.append(entry)
                self._read = Position(entry.segment, entry.damage.end)
                continue
            self._read = entry.behind
            if isinstance(entry.record, Settle):
                batch.events.append(entry.record.event)
        if self._read == batch.behind:
            return None
        return batch._replace(behind=self._read)

    def acknowledge(self, batch: Batch) -> None:
        """Take note that the ledger has a batch."""
        self._cursor = Cursor(batch.behind, self._open_from())
        try:
            self._folder.write_cursor(self._cursor)
        except OSError as fault:
            # A full disk is no reason not to ship: whoever reads the older one delivers some events twice.
            log.warning("how far %s was shipped cannot be written: %s", self._folder.holder, fault)

    def rewind(self) -> None:
        """Go back to what was acknowledged, because what was taken since has not been delivered."""
        self._read = self._cursor.shipped
        self._entries = iter(())

    def _next(self) -> Entry | Lost | None:
        entry = next(self._entries, None)
        if entry is not None:
            return entry
        # The writer may have gone on since the last look; where it has not, there is no need for one.
        end = self._end()
        if end is not None and end <= self._read:
            return None
        self._entries = self._folder.entries(self._read, end, decode_settle)
        return next(self._entries, None)


# Makes the event of an attempt that nobody finished, after so many tokens had been emitted.
Interrupted = Callable[[Attempt, int], UsageEvent]


def left_open(folder: Folder, make: Interrupted = interrupted) -> list[UsageEvent]:
    """Make the events of all intents that have no settle, in a folder that nobody writes to any more."""
    intents: dict[str, Attempt] = {}
    emitted: dict[str, int] = {}
    settled: set[str] = set()
    for entry in folder.entries(Position(folder.read_cursor().open_from, 0)):
        record = entry.record if isinstance(entry, Entry) else None
        if isinstance(record, Intent) and record.attempt.event_id not in settled:
            intents[record.attempt.event_id] = record.attempt
        elif isinstance(record, Progress):
            # A record that was written anew may come after a later one.
            emitted[record.event_id] = max(record.emitted_tokens, emitted.get(record.event_id, 0))
        elif isinstance(record, Settle):
            settled.add(record.event.event_id)
            intents.pop(record.event.event_id, None)
    return [make(attempt, emitted.get(event_id, 0)) for event_id, attempt in intents.items()]
