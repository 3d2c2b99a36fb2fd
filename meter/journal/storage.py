"""The few operations on files that a journal needs, so that faults can be put between them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Storage(NamedTuple):
    """Operations on files."""

    create: Callable[[Path], int]
    """Make a new file for appending, so that its name survives a power cut; returns a descriptor."""
    write: Callable[[int, bytes], int]
    """Append bytes; returns how many were taken."""
    sync: Callable[[int], None]
    """Wait until a file's bytes survive a power cut."""
    close: Callable[[int], None]


def _create(path: Path) -> int:
    descriptor = os.open(path, _CREATE, 0o600)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return descriptor


DISK = Storage(create=_create, write=os.write, sync=os.fdatasync, close=os.close)
