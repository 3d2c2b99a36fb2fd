"""The shipper: takes settled events off the event loop's hands and delivers them to the ledger in batches.

One thread writes. A batch whose delivery fails, or ends in the unknown, is delivered again: the ledger counts
an event only once.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from meter.core.events import UsageEvent

BATCH_EVENTS_MAX = 1000
RETRY_SECONDS_FIRST = 0.1
RETRY_SECONDS_MAX = 5.0
UPKEEP_SECONDS = 30.0

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where events go: appends those that are not there yet, and returns how many they were."""

    def __call__(self, events: Sequence[UsageEvent], /) -> int:
        """Append the events."""


class Shipper:
    """A queue of events and the thread that empties it."""

    def __init__(self, sink: Sink, *, upkeep: Callable[[], None], queued_max: int) -> None:
        self._sink = sink
        self._upkeep = upkeep
        self._queued_max = queued_max
        self._queue: deque[UsageEvent] = deque()
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def __len__(self) -> int:
        return len(self._queue)

    def has_room(self) -> bool:
        """Say whether more events may come; what has been admitted is always accepted."""
        return len(self._queue) < self._queued_max

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def accept(self, event: UsageEvent) -> None:
        """Queue one event; never blocks for longer than it takes to append it."""
        with self._wake:
            self._queue.append(event)
            self._wake.notify()

    def close(self, timeout_seconds: float) -> int:
        """Deliver what is queued, for at most this long; returns how many events are left undelivered."""
        self._closing.set()
        with self._wake:
            self._wake.notify()
        self._thread.join(timeout_seconds)
        self._abandoned.set()
        return len(self._queue)

    def _run(self) -> None:
        while self._wait_for_events():
            batch = [self._queue[at] for at in range(min(len(self._queue), BATCH_EVENTS_MAX))]
            if self._deliver(batch):
                for _ in batch:
                    self._queue.popleft()

    def _wait_for_events(self) -> bool:
        """Wait until there is something to deliver; false when closing and nothing is left."""
        while not self._queue:
            if self._closing.is_set():
                return False
            with self._wake:
                if not self._queue and not self._closing.is_set() and not self._wake.wait(UPKEEP_SECONDS):
                    self._keep_up()
        return not self._abandoned.is_set()

    def _deliver(self, batch: Sequence[UsageEvent]) -> bool:
        pause = RETRY_SECONDS_FIRST
        while not self._abandoned.is_set():
            try:
                self._sink(batch)
            except Exception:
                # Whatever went wrong, the events are still queued, and delivering twice does no harm.
                log.exception("the ledger did not take %d events; trying again in %.1f s", len(batch), pause)
                self._abandoned.wait(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
            else:
                return True
        return False

    def _keep_up(self) -> None:
        try:
            self._upkeep()
        except Exception:
            log.exception("the database's upkeep failed; it is tried again in %.0f s", UPKEEP_SECONDS)
