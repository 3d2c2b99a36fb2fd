"""The data directory: what this server keeps beside its database, readable by nobody else."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 (a file's name)
PEPPER_FILE = "pepper"
SERVER_LOCK = "server.lock"


class InUseError(Exception):
    """Another server already works on this data directory."""


def prepare(directory: Path) -> None:
    """Make the directory, closed to others."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_or_make(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """Return a secret from its file, made on first use; the second value says whether it was made now."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip(), False
    secret = make()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret, True


def claim(directory: Path) -> int:
    """Take the directory for this server as long as the returned descriptor is open; raises `InUseError`."""
    descriptor = os.open(directory / SERVER_LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUseError(f"another meter already serves from {directory}") from None
    return descriptor
