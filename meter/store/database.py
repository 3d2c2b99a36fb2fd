"""Engines and transactions: `read()` sees one state of the database, `write()` commits or changes nothing.

SQLite serves one server. Up to 3.51.2 it can corrupt a WAL database when a checkpoint races another
connection's commit, so that nothing checkpoints by itself: every write transaction, the CLI's too, holds
`flock(writer.lock)`, and the server checkpoints under the same lock.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

SQLITE_BUSY_TIMEOUT_MS = 5000


class Database:
    """One database under one URL; made once by whoever wires things, and disposed of by it."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        self.engine = sa.create_engine(self.url, connect_args=self._connect_args())
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection that sees one consistent state."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection whose transaction commits at the end, or rolls back on an error."""
        with self._writer_lock(), self.engine.connect() as connection:
            writer = connection.execution_options(meter_write=True)
            with writer.begin():
                yield writer

    def insert(self, table: sa.Table) -> Any:
        """Make the dialect's INSERT, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def checkpoint(self) -> None:
        """Move SQLite's log into its database file; nothing to do elsewhere."""
        if not self.is_sqlite:
            return
        with self._writer_lock(), self.engine.connect() as connection:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raw.close()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _connect_args(self) -> dict[str, Any]:
        if not self.is_sqlite:
            return {}
        return {"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        lock = os.open(self.path.parent / "writer.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would commit behind SQLAlchemy's back.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that starts by reading and writes later fails when another writer came between.
    writes = connection.get_execution_options().get("meter_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
