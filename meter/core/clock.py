"""Time as an argument: what tells the time is handed in, so that tests can tell another."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple


class Clock(NamedTuple):
    """Two ways to tell time; durations never come from the wall clock, which may be set."""

    now: Callable[[], datetime]
    """The time in UTC, aware."""
    monotonic: Callable[[], float]
    """Seconds since some instant, never going back."""
