"""What bounds a process's listeners, as the settings say."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from meter.app import descriptors
from meter.core.errors import MeterError
from meter.metrics import Metrics
from meter.proxy.connections import ConnectionLimits, Connections, Local, Overflow
from meter.proxy.load import Load
from meter.proxy.pump import Bounds
from meter.proxy.relay import Limits
from meter.settings import Settings


class Doors(NamedTuple):
    """The connections of both listeners."""

    data: Connections
    control: Connections


def doors(
    settings: Settings, metrics: Metrics, local: Mapping[str, Local], refused: Callable[[MeterError], None]
) -> Doors:
    """Make the doors; `local` answers even those who are too many."""
    room = descriptors.room(settings)
    data = Connections(
        connection_limits(settings, room.data),
        overflow=Overflow(local, refused),
        cut=metrics.cut,
    )
    control = Connections(
        connection_limits(settings, room.control),
        overflow=Overflow({}, refused),
        cut=metrics.cut,
    )
    metrics.gauge("meter_connections", "Connections of the data listener.", lambda: len(data))
    metrics.gauge("meter_control_connections", "Connections of the control listener.", lambda: len(control))
    metrics.gauge(
        "meter_stalled_connections", "Connections whose client is slow to read.", lambda: data.stalled
    )
    return Doors(data, control)


def connection_limits(settings: Settings, connections_max: int) -> ConnectionLimits:
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


def load_of(settings: Settings, metrics: Metrics, data: Connections) -> Load:
    """Make what counts the requests under way and what is held for them."""
    load = Load(
        requests_max=settings.requests_max, bytes_max=settings.held_bytes_max, stalled=lambda: data.stalled
    )
    metrics.gauge(
        "meter_held_bytes", "Bytes held at most of bodies and for slow clients.", lambda: load.held_bytes
    )
    return load


def limits_of(settings: Settings) -> Limits:
    """Return what shapes a request's way."""
    return Limits(
        body_bytes_max=settings.body_bytes_max,
        stream_usage=settings.stream_usage,
        answers=Bounds(
            hangup_grace_seconds=settings.hangup_grace_seconds,
            stream_seconds_max=settings.stream_seconds_max,
            response_bytes_max=settings.response_bytes_max,
        ),
    )
