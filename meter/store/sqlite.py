"""SQLite, for one server: how its connections are set up, and the lock that its writers hold.

Up to 3.51.2 it can corrupt a WAL database when a checkpoint races another connection's commit, so that
nothing checkpoints by itself: every write transaction, the CLI's too, holds `flock(writer.lock)`, and the
server checkpoints under the same lock.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from meter.store.failures import DatabaseDamaged
from meter.store.purpose import Purpose
from meter.store.tables import dump_json, in_utc

BUSY_TIMEOUT_SECONDS = 5.0
_OFFSET_CHARACTERS = len("+00:00")
# How many steps SQLite takes between two looks at the time.
STEPS_BETWEEN_LOOKS = 10_000
# How many rows go into a statement, so that few statements do for any number of them, and stay prepared.
# SQLite takes 32,766 values at least.
ROWS_PER_STEP = (64, 8, 1)


def engine(url: sa.URL, purpose: Purpose) -> sa.Engine:
    """Make an engine with a pool of its own; it opens the file on first use."""
    made = sa.create_engine(
        url,
        pool_size=purpose.connections_max,
        max_overflow=0,
        pool_timeout=purpose.wait_seconds,
        hide_parameters=True,
        json_serializer=dump_json,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    sa.event.listen(made, "connect", _prepare)
    sa.event.listen(made, "begin", _begin_write if purpose.writes else _begin_read)
    return made


def identity(database: Path) -> tuple[int, int] | None:
    """Say which file stands at a path, by device and inode; `None` where there is none."""
    try:
        stat = database.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def time_text(instant: datetime) -> str:
    """Write an instant as SQLAlchemy does, in a fraction of its time; raises `ValueError` for naive ones."""
    return in_utc(instant).isoformat(" ", "microseconds")[:-_OFFSET_CHARACTERS]


def insert_rows(
    connection: sa.Connection, into: str, rows: Sequence[tuple[object, ...]], otherwise: str = ""
) -> None:
    """Insert rows `into` a table and its columns; `otherwise` is what ON CONFLICT does.

    Many at a step: the driver gives the interpreter away for each one, and must wait to get it back.
    """
    at = 0
    for size in ROWS_PER_STEP:
        end = at + (len(rows) - at) // size * size
        if at < end:
            places = _places(len(rows[0]), size)
            steps = [tuple(chain.from_iterable(rows[each : each + size])) for each in range(at, end, size)]
            connection.exec_driver_sql(f"INSERT INTO {into} VALUES {places} {otherwise}", steps)  # noqa: S608 (names of ours)
        at = end


@cache
def _places(columns: int, rows: int) -> str:
    row = ", ".join("?" * columns)
    return ", ".join([f"({row})"] * rows)


@contextmanager
def writer_lock(database: Path) -> Iterator[None]:
    """Wait until nobody else writes, in this process or another, and keep them waiting."""
    lock = os.open(database.parent / "writer.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def checkpoint(writer: sa.Engine) -> None:
    """Move the log into the database file, as far as no reader needs it; the caller holds the writers' lock.

    A report may read for minutes, and whoever writes would wait behind a checkpoint that waits for it.
    """
    with writer.connect() as connection:
        raw = connection.connection.cursor()
        raw.execute("PRAGMA busy_timeout=0")
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000:.0f}")
            raw.close()


def check(connection: sa.Connection, seconds_max: float) -> None:
    """Look for damage in the file, as far as the time allows; raises `DatabaseDamaged`."""
    raw: Any = connection.connection.driver_connection
    deadline = time.monotonic() + seconds_max
    raw.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_LOOKS)
    try:
        found = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
    else:
        if found != "ok":
            raise DatabaseDamaged(" ".join(found.split()))
    finally:
        raw.set_progress_handler(None, 0)


def _prepare(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would commit behind SQLAlchemy's back.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.execute("PRAGMA foreign_keys=ON")
    # Where batches are staged.
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.close()


def _begin_read(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_write(connection: sa.Connection) -> None:
    # A transaction that starts by reading and writes later fails when another writer came between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
