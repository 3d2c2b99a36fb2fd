"""One process's journal, opened: its folder under lock, the writing end, and the thread that ships it."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from meter.core.attempts import interrupted
from meter.journal.backlog import Backlog, Interrupted
from meter.journal.folder import Folder
from meter.journal.journal import Journal
from meter.journal.quarantine import Quarantine
from meter.journal.recovery import adopt, prune, prune_segments
from meter.journal.shipper import Delivery, Finished, Shipper, Sink
from meter.journal.storage import DISK, Storage

# From here on shipped segments go before their day is over.
PRESSED_FROM = 0.5
CLOSING_SECONDS = 10.0

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """How a journal is kept."""

    root: Path
    holder: str
    power: bool
    bytes_max: int
    storage: Storage = DISK


class Ledger(NamedTuple):
    """Where settled events go."""

    append: Sink
    refusal: type[Exception]
    """What appending raises for an event that will never be taken."""
    give_up: Callable[[], None] = lambda: None
    """Ends what an append waits for, from another thread."""


class Holding:
    """A journal with its shipper. Made on the event loop's thread, which is also the one that writes."""

    def __init__(
        self,
        options: Options,
        *,
        ledger: Ledger,
        upkeep: Callable[[], None],
        interrupted: Interrupted = interrupted,
        finished: Finished = lambda _holder, _settled: None,
    ) -> None:
        options.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = options.root
        self._folder, self._lock = Folder.claim(options.root / options.holder)
        self._loop = asyncio.get_running_loop()
        self._warned = False
        self._upkeep = upkeep
        self.quarantine = Quarantine(options.root)
        delivery = Delivery(
            sink=ledger.append,
            refusal=ledger.refusal,
            quarantine=self.quarantine,
            abandoned=threading.Event(),
            interrupted=interrupted,
            finished=finished,
        )
        self._finished = finished
        self.journal = Journal(
            self._folder,
            options.storage,
            power=options.power,
            bytes_max=options.bytes_max,
            settled=self._on_settle,
        )
        self._backlog = Backlog(
            self._folder, end=lambda: self.journal.position, open_from=lambda: self.journal.open_from
        )
        self.shipper = Shipper(
            self._backlog,
            delivery,
            holder=options.holder,
            adopt=partial(adopt, options.root, delivery),
            upkeep=self._keep_house,
            give_up=ledger.give_up,
        )
        self.shipper.start()

    @property
    def waiting(self) -> int:
        """How many settled events are on their way to the ledger."""
        return self.journal.settles - self.shipper.shipped

    def close(self) -> None:
        """Write and ship what is left; what the ledger does not take now stays for whoever comes next."""
        self.journal.close()
        everything = self.shipper.close(CLOSING_SECONDS)
        if everything and not self.journal.open_intents and self._finish():
            self._folder.done.touch(mode=0o600)
        else:
            log.warning("the journal of %s is left for the next server", self._folder.holder)
        os.close(self._lock)

    def _finish(self) -> bool:
        try:
            self._finished(self._folder.holder, ())
        except Exception as fault:  # noqa: BLE001 (whatever it was, the journal stays for the next one)
            log.warning("nobody could be told that a journal is finished: %s", fault)
            return False
        return True

    def _on_settle(self) -> None:
        self.shipper.wake()

    def _keep_house(self) -> None:
        """Run on the shipper's thread every few seconds."""
        self._upkeep()
        now = time.time()
        prune(self._root, now=now)
        cursor = self._backlog.cursor
        pressed = self.journal.fullness > PRESSED_FROM
        before = min(cursor.shipped.segment, cursor.open_from)
        freed = prune_segments(self._folder, before=before, now=now, pressed=pressed)
        if freed:
            self._loop.call_soon_threadsafe(self.journal.forget, freed)
        if pressed and not self._warned:
            log.warning("the journal is %.0f %% full", self.journal.fullness * 100)
        self._warned = pressed
