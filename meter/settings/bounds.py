"""The settings that bound what a process takes in and holds at once, whoever asks for it."""

import msgspec

from meter.settings.rows import Setting
from meter.settings.values import as_positive, as_seconds


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything there may be, in each process."""

    connections_max: int
    admin_connections_max: int
    header_bytes_max: int
    client_headers_timeout_seconds: float
    client_body_idle_seconds: float
    client_body_timeout_seconds: float
    client_stall_timeout_seconds: float
    keep_alive_seconds: float


BOUNDS: tuple[Setting, ...] = (
    Setting(
        "connections_max",
        as_positive,
        "12000",
        "Connections of the data listener, in each process; further ones get 503.",
    ),
    Setting(
        "admin_connections_max",
        as_positive,
        "500",
        "Connections of the control listener; further ones get 503.",
    ),
    Setting(
        "header_bytes_max", as_positive, "65536", "Largest request line with headers; a larger one gets 431."
    ),
    Setting(
        "client_headers_timeout_seconds",
        as_seconds,
        "10",
        "How long a client may take to send a request line and headers; then 408.",
    ),
    Setting(
        "client_body_idle_seconds",
        as_seconds,
        "30",
        "How long a client may be silent within a request's body; then 408.",
    ),
    Setting(
        "client_body_timeout_seconds",
        as_seconds,
        "600",
        "How long a client may take to send a request's body; then 408.",
    ),
    Setting(
        "client_stall_timeout_seconds",
        as_seconds,
        "60",
        "How long a client may take in nothing of a response that waits for it; then it is cut off.",
    ),
    Setting(
        "keep_alive_seconds",
        as_seconds,
        "75",
        "How long a client's connection is kept between two requests.",
    ),
)
