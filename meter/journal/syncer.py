"""The thread that makes written records survive a power cut.

It has no timer: it syncs whatever has piled up while the last sync ran. A file whose sync failed is never
synced again, because the kernel may have dropped the pages and would report success (fsyncgate, 2018);
whoever owns it writes the records anew elsewhere.
"""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from meter.journal.storage import Storage


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
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)
        self._thread.start()

    def request(self, descriptor: int, number: int, *, last: bool = False) -> None:
        """Ask for a sync; returns at once."""
        self._requests.put(Request(descriptor, number, last))

    def close(self) -> None:
        """Finish what was asked for."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        broken: set[int] = set()
        while (pending := self._take()) is not None:
            for descriptor in dict.fromkeys(request.descriptor for request in pending):
                requests = [request for request in pending if request.descriptor == descriptor]
                if descriptor not in broken and not self._sync(requests[-1]):
                    broken.add(descriptor)
                if any(request.last for request in requests):
                    self._storage.close(descriptor)
                    broken.discard(descriptor)

    def _take(self) -> list[Request] | None:
        """Wait for a request, and take those behind it along; `None` at the end."""
        first = self._requests.get()
        if first is None:
            return None
        taken = [first]
        while not self._requests.empty():
            following = self._requests.get()
            if following is None:
                self._requests.put(None)
                break
            taken.append(following)
        return taken

    def _sync(self, request: Request) -> bool:
        try:
            self._storage.sync(request.descriptor)
        except OSError as fault:
            self._failed(request.descriptor, fault)
            return False
        self._synced(request.number)
        return True
