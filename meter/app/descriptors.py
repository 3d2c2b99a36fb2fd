"""How many files and connections a process may open, and how many connections that leaves room for."""

import logging
import resource
from typing import NamedTuple

from meter.settings import Settings

# For the database, the journal, look-ups, the log, and connections to upstreams that are kept.
SPARE = 256
_SPARE_PART = 3
_CONTROL_PART = 8

log = logging.getLogger(__name__)


class Room(NamedTuple):
    """How many connections each listener may have."""

    data: int
    control: int


def needed(settings: Settings) -> int:
    """Return how many descriptors a process needs at most: each request has a connection on either side."""
    connections = settings.connections_max + settings.admin_connections_max
    return connections + connections // 10 + settings.requests_max + SPARE


def limit() -> int:
    """Return how many descriptors this process may have."""
    return _read()[0]


def reachable() -> int:
    """Return how many it may have once it has asked for more."""
    return _read()[1]


def raise_limit(settings: Settings) -> None:
    """Ask for as many as are needed, and say so where that is not to be had."""
    wanted, (soft, hard) = needed(settings), _read()
    if soft < wanted and soft < hard:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(wanted, hard), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
    if hard < wanted:
        log.warning(
            "this process may open %d files and connections, and needs %d: it takes %d connections at most; "
            "raise 'ulimit -n', or lower METER_CONNECTIONS_MAX and METER_REQUESTS_MAX",
            hard,
            wanted,
            room(settings).data,
        )


def room(settings: Settings) -> Room:
    """Return how many connections there may be, by the settings and by what this process may open."""
    available = limit()
    available -= min(SPARE, available // _SPARE_PART)
    control = max(1, min(settings.admin_connections_max, available // _CONTROL_PART))
    return Room(max(1, min(settings.connections_max, (available - 2 * control) // 2)), control)


def _read() -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    return tuple(2**31 if value == endless else value for value in (soft, hard))  # type: ignore[return-value]
