"""The thread that makes written records survive a power cut.

It has no timer: it syncs whatever has piled up while the last sync ran. A file whose sync failed is never
synced again, because the kernel may have dropped the pages and would report success (fsyncgate, 2018);
whoever owns it writes the records anew elsewhere.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from meter.journal.storage import Storage

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """Sync a file, up to the record of this number, and close it if nothing more will be written to it."""

    descriptor: int
    number: int
    last: bool


class Syncer:
    """Syncs files in the order of the requests; answers come from its own thread."""

    def __init__(
        self, storage: Storage, *, synced: Callable[[int], None], failed: Callable[[int, OSError], None]
    ) -> None:
        self._storage = storage
        self._synced = synced
        self._failed = failed
        # At most one request a file waits to be taken: a newer one takes its place without waking anybody.
        self._waiting: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._descriptors: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)
        self._thread.start()

    def request(self, descriptor: int, number: int, *, last: bool = False) -> None:
        """Ask for a sync; returns at once."""
        with self._lock:
            earlier = self._waiting.get(descriptor)
            self._waiting[descriptor] = Request(descriptor, number, last)
        if earlier is None:
            self._descriptors.put(descriptor)

    def close(self) -> None:
        """Finish what was asked for."""
        self._descriptors.put(None)
        self._thread.join()

    def _run(self) -> None:
        broken: set[int] = set()
        while (descriptor := self._descriptors.get()) is not None:
            with self._lock:
                request = self._waiting.pop(descriptor)
            if descriptor not in broken and not self._sync(request):
                broken.add(descriptor)
            if request.last:
                broken.discard(descriptor)
                self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        try:
            self._storage.close(descriptor)
        except OSError as fault:
            # What was written has been synced, or is written anew: nobody has to wait for ever because of it.
            log.warning("a segment was not closed properly: %s", fault)

    def _sync(self, request: Request) -> bool:
        try:
            self._storage.sync(request.descriptor)
        except OSError as fault:
            self._failed(request.descriptor, fault)
            return False
        self._synced(request.number)
        return True
