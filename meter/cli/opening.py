"""How commands get at the configuration, the database and the secrets."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meter.datadir import PEPPER_FILE, prepare, read_or_make
from meter.settings import Settings, load
from meter.store import revision
from meter.store.database import Database

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160


def settings(config: Path | None = None, **options: object) -> Settings:
    """Read the configuration of this command."""
    return load(os.environ, config, **options)


@contextmanager
def existing_database(configured: Settings, *, any_version: bool = False) -> Iterator[Database]:
    """Open a database that must be there already, and unless told otherwise of this meter's version."""
    path = configured.sqlite_path
    if path is not None and not path.exists():
        raise ValueError(
            f"there is no database at {path}. Start with 'meter serve', "
            "or name the data directory in METER_DATA_DIR."
        )
    with database(configured) as opened:
        if not any_version and revision.current(opened) != revision.HEAD:
            raise ValueError("the database is of another version than this meter: run 'meter db upgrade'")
        yield opened


@contextmanager
def database(configured: Settings) -> Iterator[Database]:
    """Open the database, which SQLite makes where there is none."""
    prepare(configured.data_dir)
    opened = Database(configured.database_url.reveal())
    try:
        yield opened
    finally:
        opened.dispose()


def console() -> "Console":
    """Return where tables are printed; without a terminal, wide enough not to break names.

    What is printed is text: a name like `[/red]` is no markup, and `:key:` no picture.
    """
    from rich.console import Console  # noqa: PLC0415 (large, and no server prints tables)

    found = Console(markup=False, emoji=False, highlight=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH
    return found


def pepper(configured: Settings) -> bytes:
    """Return the pepper: configured, or from the data directory, where it is made on first use."""
    if configured.pepper is not None:
        return configured.pepper.reveal().encode()
    text, _ = read_or_make(configured.data_dir / PEPPER_FILE, lambda: secrets.token_urlsafe(48))
    return text.encode()
