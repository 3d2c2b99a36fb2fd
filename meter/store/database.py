"""The database: `read()` sees one state of it, `write()` commits or changes nothing.

Key look-ups, writes and long reads have pools of their own, so that no number of reports keeps a key waiting.
What goes wrong is told apart in `meter.store.failures`: `DatabaseUnavailable` passes, `RowRefused` does not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect

from meter.late import Late
from meter.store import sqlite
from meter.store.failures import DatabaseUnavailable, RowRefused, told_apart
from meter.store.purpose import READING, READING_LONG, WRITING, Purpose

if TYPE_CHECKING:
    from meter.store import postgresql
else:
    postgresql = Late("meter.store.postgresql")

__all__ = ["Database", "DatabaseUnavailable", "RowRefused"]


class Database:
    """One database under one URL; made once by whoever wires things, and disposed of by it."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.url = parsed if self.is_sqlite else postgresql.driver_url(parsed)
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        self._file: tuple[int, int] | None = None
        self._opened: WeakSet[Any] = WeakSet()
        self._reader, self._writer, self._long_reader = (
            self._engine(purpose) for purpose in (READING, WRITING, READING_LONG)
        )

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection that sees one consistent state, for a short look."""
        with told_apart(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def read_long(self) -> Iterator[sa.Connection]:
        """Give a connection that sees one consistent state, for reports and other long reads."""
        with told_apart(), self._long_reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection whose transaction commits at the end, or rolls back on an error.

        Writers to SQLite come one after the other. On PostgreSQL they run side by side, and what one reads
        may have changed when it writes: let a single statement decide, or lock the row.
        """
        with told_apart(), self._writer_lock():
            self._check_file()
            with self._writer.connect() as connection, connection.begin():
                yield connection

    @contextmanager
    def write_long(self, statement_seconds: float) -> Iterator[sa.Connection]:
        """Write where a statement may take this long, as in migrations; on a connection that is not kept."""
        engine = self._engine(WRITING._replace(statement_seconds=statement_seconds))
        try:
            with told_apart(), self._writer_lock(), engine.connect() as connection, connection.begin():
                yield connection
        finally:
            engine.dispose()

    def insert(self, table: sa.Table) -> Any:
        """Make the dialect's INSERT, which knows ON CONFLICT."""
        return sqlite_dialect.insert(table) if self.is_sqlite else postgresql_dialect.insert(table)

    def checkpoint(self) -> None:
        """Move SQLite's log into its database file; nothing to do elsewhere."""
        if self.is_sqlite:
            with told_apart(), self._writer_lock():
                self._check_file()
                sqlite.checkpoint(self._writer)

    def check(self, seconds_max: float) -> None:
        """Look for damage in SQLite's file, for so long at most; raises `DatabaseDamaged`."""
        if self.path is not None and self.path.exists():
            with self.read_long() as connection:
                sqlite.check(connection, seconds_max)

    def hang_up(self) -> None:
        """End what waits for a server's answer, from any thread: it raises `DatabaseUnavailable` now."""
        postgresql.hang_up(self._opened)

    def dispose(self) -> None:
        """Close all connections."""
        for engine in (self._reader, self._writer, self._long_reader):
            engine.dispose()

    def _engine(self, purpose: Purpose) -> sa.Engine:
        if self.is_sqlite:
            return sqlite.engine(self.url, purpose)
        return postgresql.engine(self.url, purpose, self._opened)

    def _check_file(self) -> None:
        """Notice a SQLite file that was removed or replaced: open connections go on with the old one.

        What they commit would be gone with the last of them, although it was reported as written.
        """
        if self.path is None:
            return
        found = sqlite.identity(self.path)
        if self._file is not None and found != self._file:
            self.dispose()
        if found is None and self._file is not None:
            raise DatabaseUnavailable(f"{self.path} is gone")
        self._file = found

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        with sqlite.writer_lock(self.path):
            yield
