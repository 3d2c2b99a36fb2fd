"""Writes of one turn of the loop, joined: a response's head goes with the body that follows it, by one call.

A call into the kernel takes longer than anything else that is done for a write, and wakes the client.
"""

import asyncio

# So much is not kept for company.
HELD_BYTES_MAX = 64 * 1024


class JoinedWrites:
    """What answers write to, in the place of a connection's transport."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> None:
        """Write with what else comes in this turn."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is held, before anything else happens to the connection."""
        if not self._held:
            return
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close when everything has been written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Say whether the connection is being closed."""
        return self._transport.is_closing()
