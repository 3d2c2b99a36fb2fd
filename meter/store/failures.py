"""What a failure of the database means to whoever asked: come back later, or never with this row.

    the server or the file is away, full, read-only, too busy    DatabaseUnavailable
    SQLite's file is damaged                                      DatabaseDamaged, which is one of these
    a row breaks a constraint, or does not fit its columns       RowRefused
    anything else, such as a table that is not there             the driver's own error: a mistake of ours

Nobody outside the store has to know the drivers' errors.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    import psycopg
else:
    from meter.store import psycopg_errors as psycopg

# SQLSTATE by class: connections, transactions that lost to others, resources (disk, memory, connections),
# operator intervention (shutdown, time-outs), the operating system.
_AWAY_CLASSES = ("08", "40", "53", "57", "58")
_AWAY_STATES = (
    "25006",  # read-only: a standby, or a server without room
    "25P03",  # the server gave up on a transaction that stood idle
    "55P03",  # a lock did not come in time
)
# Data that cannot be converted, broken constraints, values too large for an index.
_REFUSED_CLASSES = ("22", "23", "54")

_AWAY_ON_SQLITE = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)
_DAMAGED_ON_SQLITE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# The upper bits of a code of SQLite's only say more about the lower ones.
_PRIMARY_CODE = 0xFF


class DatabaseUnavailable(Exception):
    """The database is away, or does nothing now; nothing is wrong with what it was asked."""


class DatabaseDamaged(DatabaseUnavailable):
    """The database's file is damaged; it is away until somebody has put another one in its place."""


class RowRefused(Exception):
    """The database will never take this row; whatever else was in the transaction is not there either."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise what goes wrong inside as what it means."""
    try:
        yield
    except (
        sa.exc.SQLAlchemyError,
        psycopg.Error,
        sqlite3.Error,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        cause = error.orig if isinstance(error, sa.exc.StatementError) and error.orig else error
        if _is_damaged(cause):
            raise DatabaseDamaged(_summary(cause)) from error
        if _is_away(error, cause):
            raise DatabaseUnavailable(_summary(cause)) from error
        if _is_refused(error, cause):
            raise RowRefused(_summary(cause)) from error
        raise


def _is_damaged(cause: BaseException) -> bool:
    return isinstance(cause, sqlite3.Error) and _primary_code(cause) in _DAMAGED_ON_SQLITE


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE


def _is_away(error: Exception, cause: BaseException) -> bool:
    if isinstance(error, sa.exc.TimeoutError) or (
        isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    ):
        return True
    if isinstance(cause, sqlite3.Error):
        return _primary_code(cause) in _AWAY_ON_SQLITE
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        return cause.sqlstate[:2] in _AWAY_CLASSES or cause.sqlstate in _AWAY_STATES
    # Without a state the server did not say anything: it was not reached, or went away in between.
    return isinstance(cause, psycopg.OperationalError | OSError)


def _is_refused(error: Exception, cause: BaseException) -> bool:
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        return cause.sqlstate[:2] in _REFUSED_CLASSES
    if isinstance(cause, sqlite3.IntegrityError | sqlite3.DataError | psycopg.DataError):
        return True
    # What the drivers cannot even send: lone surrogates, integers of more than 64 bits; naive times.
    return isinstance(cause, UnicodeEncodeError | OverflowError) or (
        isinstance(error, sa.exc.StatementError) and isinstance(cause, ValueError | TypeError)
    )


def _summary(cause: BaseException) -> str:
    """Say what went wrong without the row itself, which PostgreSQL would show in the details."""
    told = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    lines = str(told or cause).splitlines()
    return lines[0] if lines else type(cause).__name__
