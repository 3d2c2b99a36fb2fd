"""PostgreSQL, for many servers: connections that never wait for ever.

The server ends statements that take too long. That does not help where it is stopped or gone, so a connection
of ours also gives up by itself, a little later, and what it did not hear about is unknown.
"""

import contextlib
import os
import socket
from collections.abc import MutableSet
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from meter.store.purpose import Purpose
from meter.store.tables import dump_json

# Also how long a pooled connection may take to show that it still works.
CONNECT_SECONDS_MAX = 2
# The server's answer that a statement took too long should come before we give up on the server.
ANSWER_GRACE_SECONDS = 1.0
# A server of ours that is stopped in the middle of a write must not keep its rows locked for all others.
IDLE_IN_TRANSACTION_SECONDS_MAX = 10
# A vanished peer is noticed within about ten seconds, not after the system's two hours.
_NETWORK = {
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "meter",
}

_Result = TypeVar("_Result")


def engine(url: sa.URL, purpose: Purpose, opened: MutableSet[Any]) -> sa.Engine:
    """Make an engine with a pool of its own; it connects on first use, and puts what it opened into a set."""
    made = sa.create_engine(
        url,
        pool_size=purpose.connections_max,
        max_overflow=0,
        pool_timeout=purpose.wait_seconds,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=dump_json,
        connect_args=_connect_args(url, purpose),
    )

    def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> _Connection:
        connection = _Connection.connect(*arguments, **options)
        connection.answer_seconds = purpose.statement_seconds + ANSWER_GRACE_SECONDS
        if not purpose.writes:
            # One state of the database for all statements of a transaction.
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        opened.add(connection)
        return connection

    sa.event.listen(made, "do_connect", connect)
    return made


def hang_up(opened: MutableSet[Any]) -> None:
    """Break connections off; may be called beside the threads that use them.

    Whoever waits for an answer hears that the server is gone, instead of waiting as long as a statement may.
    """
    for connection in list(opened):
        with contextlib.suppress(psycopg.OperationalError, OSError), _shared_socket(connection) as broken:
            broken.shutdown(socket.SHUT_RDWR)


def _shared_socket(connection: psycopg.Connection[Any]) -> socket.socket:
    # By a descriptor of its own, because the connection may be closed meanwhile and its number be another's.
    return socket.socket(fileno=os.dup(connection.fileno()))


def driver_url(url: sa.URL) -> sa.URL:
    """Name the driver, so that `postgresql://` means the one that is there."""
    return url.set(drivername="postgresql+psycopg")


def _connect_args(url: sa.URL, purpose: Purpose) -> dict[str, Any]:
    """Return what connections are made with; what the URL says itself comes last, and wins."""
    ours = {
        "timezone": "UTC",
        "statement_timeout": f"{purpose.statement_seconds * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS_MAX * 1000}",
    }
    options = [
        *(f"-c {name}={value}" for name, value in ours.items()),
        *url.normalized_query.get("options", ()),
    ]
    network = {name: value for name, value in _NETWORK.items() if name not in url.query}
    return network | {"options": " ".join(options)}


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server gives no answer."""

    answer_seconds: float = CONNECT_SECONDS_MAX

    def wait(self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None) -> _Result:
        """Wait for an answer, but not longer than the statements of this connection may take."""
        # Only the pool's question whether the connection still works is asked outside of a transaction.
        limit = CONNECT_SECONDS_MAX if self.autocommit else self.answer_seconds
        try:
            return super().wait(gen, interval, limit if timeout is None else timeout)
        except psycopg.OperationalError:
            # An answer that comes later would be taken for the answer to the next question.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise
