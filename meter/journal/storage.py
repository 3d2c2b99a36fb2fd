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
    truncate: Callable[[int, int], None] = os.ftruncate
    """Cut a file to a length, after a write that took only a part of a record."""


def _create(path: Path) -> int:
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        sync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        # Its name would be in the way of the next attempt.
        path.unlink(missing_ok=True)
        raise
    return descriptor


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


DISK = Storage(create=_create, write=os.write, sync=os.fdatasync, close=os.close)
