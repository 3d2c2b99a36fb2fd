"""The data directory: what this server keeps beside its database, readable by nobody else."""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 (a file's name)
PEPPER_FILE = "pepper"
GRANTS_FILE = "grants"
PRICES_FILE = "prices"
BUDGETS_FILE = "budgets"
JOURNAL_FOLDER = "journal"
SERVER_LOCK = "server.lock"


class InUseError(Exception):
    """Another server already works on this data directory."""


def prepare(directory: Path) -> None:
    """Make the directory, closed to others."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_or_make(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """Return a secret from its file, made on first use; the second value says whether it was made now.

    The file appears whole or not at all, and whoever comes first decides what is in it.
    """
    if not path.exists():
        draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        try:
            secret = make()
            _write(draft, f"{secret}\n".encode("ascii"))
            os.link(draft, path)
            _sync_names(path.parent)
        except FileExistsError:
            pass  # Somebody else was first.
        else:
            return secret, True
        finally:
            draft.unlink(missing_ok=True)
    found = path.read_text(encoding="ascii").strip()
    if not found:
        raise ValueError(f"{path} is empty: put the secret back, or delete the file to have a new one made")
    return found, False


def save(path: Path, data: bytes) -> None:
    """Put data into a file, whole or not at all."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        _write(draft, data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    """Wait until a folder's names survive a power cut: with the pepper, every key would be lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def claim(directory: Path) -> int:
    """Take the directory for this server as long as the returned descriptor is open; raises `InUseError`."""
    descriptor = os.open(directory / SERVER_LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUseError(f"another meter already serves from {directory}") from None
    return descriptor
