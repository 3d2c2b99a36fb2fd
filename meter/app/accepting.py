"""Taking in the connections of a listener, also when the process runs out of descriptors.

uvloop gives a listener up for good when there is no descriptor for the next connection. Here whoever connects
then waits in the kernel's queue, until there are some again.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator

# So many at a time, so that those who are connected have their turn.
AT_ONCE_MAX = 100
PAUSE_SECONDS = 0.5
# What passes by itself: no descriptors for this process or for all, no memory.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger(__name__)


class Acceptor:
    """Accepts connections of a listening socket, each with a protocol of its own."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._is_short = False

    def open(self) -> None:
        """Begin to accept."""
        self._listener.settimeout(0)
        self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Take in whoever waits, and close the socket.

        Closing it resets what the kernel has accepted and nobody has taken yet.
        """
        self._loop.remove_reader(self._listener)
        if self._resuming is not None:
            self._resuming.cancel()
        waiting = list(_waiting(self._listener))
        self._listener.close()
        for connection in waiting:
            self._begin(connection)
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _accept(self) -> None:
        for _ in range(AT_ONCE_MAX):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._is_short = False
                return
            except OSError as fault:
                if fault.errno not in _SHORT_OF:
                    raise
                self._pause(fault)
                return
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._connect(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as fault:
            log.warning("a connection could not be taken in: %s", fault.strerror or fault)
            connection.close()

    def _pause(self, fault: OSError) -> None:
        if not self._is_short:
            log.warning("no connections are accepted for now: %s", fault.strerror or fault)
        self._is_short = True
        self._loop.remove_reader(self._listener)
        self._resuming = self._loop.call_later(PAUSE_SECONDS, self.open)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that nobody has taken yet."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()[0]
