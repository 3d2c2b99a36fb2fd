"""What bounds a process's listeners, as the settings say."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from meter.core.errors import MeterError
from meter.metrics import Metrics
from meter.proxy.connections import ConnectionLimits, Connections, Local, Overflow
from meter.settings import Settings


class Doors(NamedTuple):
    """The connections of both listeners."""

    data: Connections
    control: Connections


def doors(
    settings: Settings, metrics: Metrics, local: Mapping[str, Local], refused: Callable[[MeterError], None]
) -> Doors:
    """Make the doors; `local` answers even those who are too many."""
    data = Connections(
        limits_of(settings, settings.connections_max), overflow=Overflow(local, refused), cut=metrics.cut
    )
    control = Connections(
        limits_of(settings, settings.admin_connections_max), overflow=Overflow({}, refused), cut=metrics.cut
    )
    metrics.gauge("meter_connections", "Connections of the data listener.", lambda: len(data))
    metrics.gauge("meter_control_connections", "Connections of the control listener.", lambda: len(control))
    metrics.gauge(
        "meter_stalled_connections", "Connections whose client is slow to read.", lambda: data.stalled
    )
    return Doors(data, control)


def limits_of(settings: Settings, connections_max: int) -> ConnectionLimits:
    """Return what the connections of a listener may do."""
    return ConnectionLimits(
        connections_max=connections_max,
        header_bytes_max=settings.header_bytes_max,
        headers_seconds_max=settings.client_headers_timeout_seconds,
        body_idle_seconds_max=settings.client_body_idle_seconds,
        body_seconds_max=settings.client_body_timeout_seconds,
        idle_seconds_max=settings.keep_alive_seconds,
        stall_seconds_max=settings.client_stall_timeout_seconds,
    )
