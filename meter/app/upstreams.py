"""The upstreams of the configuration, each with the transport that reaches it."""

import ssl
from functools import partial

import httpx

from meter.app.actions import clock
from meter.proxy.sample import SampleTransport
from meter.proxy.transport import Transport
from meter.proxy.upstream import Timeouts, Upstream
from meter.settings import Settings, UpstreamSettings

SAMPLE = UpstreamSettings(name="sample", url="https://sample.invalid/v1")
CONNECTIONS_KEPT_MAX = 200


def open_upstreams(settings: Settings) -> tuple[Upstream, ...]:
    """Make the upstreams of the configuration; nothing is connected before it is asked for."""
    timeouts = Timeouts(
        connect=settings.connect_timeout_seconds,
        headers=settings.headers_timeout_seconds,
        idle=settings.idle_timeout_seconds,
    )
    trusted = ssl.create_default_context()
    carry = partial(_transport, settings, trusted)
    return tuple(Upstream(entry, carry(entry), timeouts) for entry in settings.upstreams)


def _transport(
    settings: Settings, trusted: ssl.SSLContext, upstream: UpstreamSettings
) -> httpx.AsyncBaseTransport:
    if upstream is SAMPLE:
        return SampleTransport(clock)
    if settings.upstream_transport == "httptools":
        return Transport(
            trusted,
            kept_max=CONNECTIONS_KEPT_MAX,
            overhead_bytes_max=settings.response_header_bytes_max,
        )
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS_KEPT_MAX)
    return httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=limits)
