"""SQLite files with all of their tables: the migrations make one for a test process, the rest are copies."""

import functools
import tempfile
from pathlib import Path

from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database


def new_sqlite(path: Path) -> str:
    """Make a SQLite file with all tables, which are empty, and return its URL."""
    path.touch(mode=0o600)
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory(prefix="meter-test-template-") as folder:
        path = Path(folder) / "meter.db"
        database = Database(f"sqlite:///{path}")
        bring_up_to_date(database)
        # What is still in the log beside it would be missing.
        database.checkpoint()
        database.dispose()
        return path.read_bytes()
