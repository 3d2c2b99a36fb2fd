"""The one clock that windows, report days and hours go by: the database's, carried on by this machine's.

Between two looks at the database's clock only the monotonic one counts, so that setting the machine's clock
changes nothing, and all servers on one database agree about when a window ends.
"""

from datetime import datetime, timedelta

from meter.core.clock import Clock


class ServerClock:
    """Tells the time by the last instant that it was told."""

    def __init__(self, machine: Clock) -> None:
        self._monotonic = machine.monotonic
        self.tell(machine.now())

    def tell(self, now: datetime) -> None:
        """Take in what time it is."""
        self._told, self._at = now, self._monotonic()

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self._told + timedelta(seconds=self._monotonic() - self._at)
