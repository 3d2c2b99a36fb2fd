"""What a process has under way at once, and holds in memory for it.

A request takes a place as soon as its key is known, and gives it back when its attempt is settled. Its body
is held until the upstream has answered, and counts as what it takes while it is decoded, not as it came: a
body of nothing but brackets takes twenty times its size.
"""

from collections.abc import Callable

from meter.core.errors import Overloaded
from meter.proxy.admission import Hold

# What one stream was seen to hold while its client is slow to read (F63 of `make faults`, events of 64 KiB):
# three quarters of a megabyte of it on its way, and what its events take while they are read.
STALLED_BYTES = 4_000_000
# Below this a body is not looked at: what it takes is little, however it is made.
LIGHT_BYTES_MAX = 64 * 1024
# What an empty list or object takes once it is decoded, and where it stands.
NESTED_BYTES = 64 + 8


class Load:
    """Counts what is under way, and refuses what would be too much."""

    def __init__(self, *, requests_max: int, bytes_max: int, stalled: Callable[[], int]) -> None:
        """Take the limits, and who knows how many clients are slow to read."""
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._stalled = stalled
        self.requests = 0
        """How many metered requests are under way."""
        self.body_bytes = 0
        """How much their bodies take."""

    @property
    def held_bytes(self) -> int:
        """How much is held at most, for requests and for clients that are slow to read."""
        return self.body_bytes + self._stalled() * STALLED_BYTES

    def arrive(self, body_bytes: int = 0) -> "Arrival":
        """Take a place, and hold what is announced of a body; raises `Overloaded`."""
        if self.requests >= self._requests_max:
            raise Overloaded("This server has as many requests under way as it may have; try again soon.")
        self.take(body_bytes)
        self.requests += 1
        return Arrival(self, body_bytes)

    def take(self, size: int) -> None:
        """Hold so many bytes more, or raise `Overloaded`."""
        if self.body_bytes + size + self._stalled() * STALLED_BYTES > self._bytes_max:
            raise Overloaded("This server holds as much of requests and answers as it may; try again soon.")
        self.body_bytes += size


class Arrival(Hold):
    """One request that is under way."""

    def __init__(self, load: Load, body_bytes: int) -> None:
        self._load = load
        self._bytes = body_bytes
        self._under_way = True

    def take(self, size: int) -> None:
        """Hold so many bytes more of its body, or hold nothing of it and raise `Overloaded`."""
        try:
            self._load.take(size)
        except Overloaded:
            self.forget()
            raise
        self._bytes += size

    def decode(self, body: bytes) -> None:
        """Hold what a body that is not light takes once it is decoded, or raise `Overloaded`."""
        self.take(len(body) + NESTED_BYTES * (body.count(b"[") + body.count(b"{")))

    def forget(self) -> None:
        """Hold nothing of its body any more."""
        self._load.body_bytes -= self._bytes
        self._bytes = 0

    def release(self) -> None:
        """Give everything back; doing it again does nothing."""
        if self._under_way:
            self._under_way = False
            self._load.requests -= 1
            self._load.body_bytes -= self._bytes
            self._bytes = 0
