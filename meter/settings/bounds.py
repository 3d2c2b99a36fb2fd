"""The settings that bound what a process takes in and holds at once, whoever asks for it."""

import msgspec

from meter.core.guesses import Network, networks
from meter.settings.rows import Setting
from meter.settings.values import as_limit, as_names, as_number, as_positive, as_seconds


def as_networks(value: str) -> tuple[Network, ...]:
    """Read addresses and networks, separated by commas."""
    try:
        return networks(as_names(value))
    except ValueError:
        raise ValueError("must be addresses or networks, such as 10.0.0.7 or 10.1.0.0/16") from None


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything there may be, in each process."""

    connections_max: int
    admin_connections_max: int
    admin_body_bytes_max: int
    requests_max: int
    held_bytes_max: int
    header_bytes_max: int
    client_headers_timeout_seconds: float
    client_body_idle_seconds: float
    client_body_timeout_seconds: float
    client_stall_timeout_seconds: float
    keep_alive_seconds: float
    stream_seconds_max: float
    """0 is no limit, here and below."""
    response_bytes_max: int
    response_header_bytes_max: int
    auth_failures_rpm: int
    """0 is no limit."""
    trusted_proxies: tuple[Network, ...]


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
        "admin_body_bytes_max", as_positive, "1000000", "Largest body of the control listener; then 413."
    ),
    Setting(
        "requests_max",
        as_positive,
        "10000",
        "Metered requests under way at once, in each process; further ones get 503.",
    ),
    Setting(
        "held_bytes_max",
        as_positive,
        "1000000000",
        "Memory for bodies and for clients that read slowly, in each process; past it requests get 503.",
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
    Setting(
        "stream_seconds_max",
        as_number,
        "3600",
        "How long an answer may take from its headers on; then it is cut; 0: any time.",
    ),
    Setting("response_bytes_max", as_limit, "1000000000", "Largest answer; a larger one is cut; 0: any."),
    Setting(
        "response_header_bytes_max",
        as_positive,
        "102400",
        "Most that an upstream may send without bringing a body on, headers above all; then 502.",
    ),
    Setting(
        "auth_failures_rpm",
        as_limit,
        "60",
        "Wrong keys and tokens a minute from one address; then unknown ones get 429, unasked; 0: any.",
    ),
    Setting(
        "trusted_proxies",
        as_networks,
        "",
        "Addresses and networks of proxies whose `X-Forwarded-For` is believed; unset: nobody's.",
    ),
)
