"""The shipper: one thread that delivers settled events from journals to the ledger, in idempotent batches.

A batch whose delivery fails, or ends in the unknown, is delivered again: the ledger counts an event once. A
batch that the ledger refuses for what is in it is cut in halves until the event at fault stands alone, and
that goes to quarantine.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meter.core.attempts import interrupted
from meter.core.events import UsageEvent
from meter.journal.backlog import Backlog, Interrupted
from meter.journal.quarantine import Quarantine

BATCH_EVENTS_MAX = 1000
# Waiting for company makes batches of what comes together: a while at least, and so many times what the last
# round took of the processor, since a round takes some of it however few events it has. So rounds take a
# hundredth of one processor, until they are as far apart as they may be.
LINGER_SECONDS_MIN = 0.02
LINGER_SECONDS_MAX = 0.5
LINGER_FACTOR = 100
RETRY_SECONDS_FIRST = 0.1
RETRY_SECONDS_MAX = 5.0
ADOPT_SECONDS = 10.0

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where events go: appends those that are not there yet, and returns how many they were."""

    def __call__(self, events: Sequence[UsageEvent], /) -> int:
        """Append the events; raises whatever goes wrong."""


# Told whose journal it was, and which of its attempts were settled by whoever adopted it.
Finished = Callable[[str, Sequence[UsageEvent]], None]


class Abandoned(Exception):
    """The process ends before the ledger came back; the journal keeps what is left."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a batch gets into the ledger, however long that takes."""

    sink: Sink
    refusal: type[Exception]
    """What the sink raises for an event that it will never take."""
    quarantine: Quarantine
    abandoned: threading.Event
    interrupted: Interrupted = interrupted
    finished: Finished = lambda _holder, _settled: None
    """Told that everything of a holder's journal has been delivered; may be told again."""
    chance: Callable[[], float] = random.random
    """Between 0 and 1: how much of the longest pause is waited for, beyond its half."""

    def deliver(self, events: Sequence[UsageEvent]) -> None:
        """Deliver a batch; raises `Abandoned` where the process ends first."""
        pause = RETRY_SECONDS_FIRST
        while events:
            try:
                self.sink(events)
            except self.refusal as refusal:
                self._bisect(events, refusal)
            except Exception as fault:
                # Servers that lost the database, or a lock, at the same time come back one by one.
                spread = pause * (1 + self.chance()) / 2
                log.warning("the ledger took no events (%s); trying again in %.1f s", fault, spread)
                if self.abandoned.wait(spread):
                    raise Abandoned from fault
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                continue
            return

    def _bisect(self, events: Sequence[UsageEvent], refusal: Exception) -> None:
        if len(events) == 1:
            log.error("the ledger refuses event %s: %s", events[0].event_id, refusal)
            self.quarantine.keep_event(events[0], str(refusal))
            return
        half = len(events) // 2
        self.deliver(events[:half])
        self.deliver(events[half:])


class Shipper:
    """The thread: ships this process's journal, adopts those of the dead, and keeps house."""

    def __init__(
        self,
        backlog: Backlog,
        delivery: Delivery,
        *,
        holder: str,
        adopt: Callable[[], None],
        upkeep: Callable[[], None],
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`give_up` ends what the sink waits for, from another thread."""
        self._backlog = backlog
        self._delivery = delivery
        self._holder = holder
        self._adopt = adopt
        self._upkeep = upkeep
        self._give_up = give_up
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._empty_at = time.monotonic()
        self.shipped = 0
        """How many of this process's events the ledger has."""
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    @property
    def lag_seconds(self) -> float:
        """How long ago nothing was left that has not been shipped by now."""
        return time.monotonic() - self._empty_at

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to ship; may be called from any thread."""
        # It is cleared before a round looks for what there is. Looking is a fraction of setting it.
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_seconds: float) -> bool:
        """Ship what is left, for at most this long; returns whether everything was."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_seconds)
        self._delivery.abandoned.set()
        if self._thread.is_alive():
            self._give_up()
        self._thread.join()
        return not self._has_more()

    def _run(self) -> None:
        try:
            self._work()
        except Abandoned:
            log.warning("the ledger is away: what is left is shipped when a server finds the journal")

    def _work(self) -> None:
        next_round = 0.0
        while True:
            # Asked before, because what is written until then is shipped too.
            closing = self._closing.is_set()
            began = time.thread_time()
            self._guarded(self._ship, "the shipping")
            linger = linger_seconds(time.thread_time() - began)
            if closing:
                return
            if time.monotonic() >= next_round:
                self._guarded(self._adopt, "the adoption of journals")
                self._guarded(self._upkeep, "the upkeep")
                next_round = time.monotonic() + ADOPT_SECONDS
            if self._wake.wait(max(0.0, next_round - time.monotonic())):
                self._closing.wait(linger)
                self._wake.clear()

    def _ship(self) -> None:
        # A round that failed half way may have taken what it did not deliver.
        self._backlog.rewind()
        while True:
            batch = self._backlog.take(BATCH_EVENTS_MAX)
            taken_at = time.monotonic()
            if batch is None:
                break
            for lost in batch.lost:
                log.error("segment %d of this journal is damaged at %d", lost.segment, lost.damage.start)
                self._delivery.quarantine.keep_lost(self._holder, lost)
            self._delivery.deliver(batch.events)
            self._backlog.acknowledge(batch)
            self.shipped += len(batch.events)
            if len(batch.events) < BATCH_EVENTS_MAX and self._wake.is_set():
                # What has come meanwhile are few, and they wait for company as others do.
                break
        self._empty_at = taken_at

    def _has_more(self) -> bool:
        self._backlog.rewind()
        return self._backlog.take(1) is not None

    def _guarded(self, work: Callable[[], None], what: str) -> None:
        try:
            work()
        except Abandoned:
            raise
        except Exception:
            log.exception("%s failed; it is tried again in %.0f s", what, ADOPT_SECONDS)


def linger_seconds(cpu_seconds: float) -> float:
    """Say how long to wait for company after a round that took this much of the processor."""
    return min(LINGER_SECONDS_MAX, max(LINGER_SECONDS_MIN, LINGER_FACTOR * cpu_seconds))
