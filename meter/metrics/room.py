"""Counters in files, on a disk that may be full.

prometheus_client makes files longer without taking room for them, and writes into them through the memory:
where the disk is full then, the kernel ends the process. Here room is taken before it is used, and where
there is none, counting goes on in memory.
"""

import logging
import mmap
import os
import sys

from prometheus_client.mmap_dict import MmapedDict

# As the library begins a file.
BYTES_MIN = 1 << 16
# What an entry has beside its key: lengths, padding, and two numbers.
_ENTRY_BYTES = 32

log = logging.getLogger(__name__)


class RoomyDict(MmapedDict):
    """A file of counters that holds nothing for which there is no room."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:  # noqa: FBT001, FBT002 (as the library calls it)
        if not read_mode and not _reserved(filename, BYTES_MIN):
            filename = f"/proc/self/fd/{_in_memory()}"
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Make an entry, for which the file may have to grow."""
        needed = self._used + len(key.encode()) + _ENTRY_BYTES
        if needed > self._capacity and not _reserved(self._fname, 2 * self._capacity):
            self._leave_the_disk()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _leave_the_disk(self) -> None:
        """Go on in memory with what was counted; the file stays as it is, and is not written any more."""
        held = _in_memory()
        os.write(held, self._m[: self._capacity])
        self._f.close()
        self._fname = f"/proc/self/fd/{held}"
        self._f = os.fdopen(held, "r+b")
        self._m = mmap.mmap(held, self._capacity)


def _in_memory() -> int:
    log.warning("there is no room for counters on the disk: they go on in memory, and are not shown")
    return os.memfd_create("counters")


def _reserved(filename: str, size: int) -> bool:
    """Take room for a file, and say whether there is enough."""
    if sys.platform != "linux":
        return True
    # What is new is closed to others, as the directory is.
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, max(size, os.fstat(descriptor).st_size))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
