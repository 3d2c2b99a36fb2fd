"""Writing lines without waiting: whoever logs puts a line into a bounded queue, and a thread writes them.

A log goes to a pipe, and whoever reads it may stop reading. Then lines are dropped and counted, and nothing
else in the process notices.
"""

import atexit
import logging
import os
import queue
import threading

LINES_MAX = 10_000
# What a process that ends waits for its last lines to be taken.
CLOSING_SECONDS = 1.0


class Writer(logging.Handler):
    """Writes records to a descriptor; made once for a process."""

    def __init__(self, descriptor: int, *, lines_max: int = LINES_MAX) -> None:
        super().__init__()
        self.dropped = 0
        """How many lines were lost."""
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes] = queue.Queue(lines_max)
        self._idle = threading.Condition()
        self._pending = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, or drop it where too many wait."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 (a record that cannot be written down must not end what it tells of)
            self.dropped += 1
            return
        with self._idle:
            self._pending += 1
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._gone(dropped=True)

    def close(self) -> None:
        """Give the thread a moment to write what is left."""
        atexit.unregister(self.close)
        with self._idle:
            self._idle.wait_for(lambda: not self._pending, CLOSING_SECONDS)
        super().close()

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            try:
                _write_all(self._descriptor, line)
            except OSError:
                # Nobody reads any more, or there is no room for what was read.
                self._gone(dropped=True)
            else:
                self._gone()

    def _gone(self, *, dropped: bool = False) -> None:
        with self._idle:
            self._pending -= 1
            self.dropped += dropped
            self._idle.notify_all()


def _write_all(descriptor: int, line: bytes) -> None:
    """Write a line; one that fits goes whole, so that those of several processes don't mix."""
    while line:
        line = line[os.write(descriptor, line) :]
