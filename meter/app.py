"""The composition root: builds every part, connects them by plain callables, and runs both listeners.

Closing runs in the order of the data: no new requests, then the pumps, then the shipper, then the database.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import httpx
import uvicorn
from litestar import Litestar

from meter import metrics as instruments
from meter.core.clock import Clock
from meter.core.estimate import count_tokens, estimate_prompt
from meter.core.events import UsageEvent, uuid7
from meter.core.keys import Grant, Key, Minting, digest, mint_id
from meter.core.teams import Team, check_name
from meter.journal.shipper import Shipper
from meter.proxy.gate import Gate
from meter.proxy.pump import Pumps
from meter.proxy.relay import Accounting, Limits, Local, Relay
from meter.proxy.sample import SampleTransport
from meter.proxy.upstream import Timeouts, Upstream
from meter.settings import Settings, UpstreamSettings
from meter.store import keys, ledger, teams
from meter.store.database import Database
from meter.web.access import guard
from meter.web.application import build as build_control
from meter.web.keys import Keys
from meter.web.system import Scrape
from meter.web.teams import Teams

SAMPLE = UpstreamSettings(name="sample", url="https://sample.invalid/v1")
# Longer than most clients keep idle connections, so that it is they who close them.
KEEP_ALIVE_SECONDS = 75
CONNECTIONS_KEPT_MAX = 200
CLOSING_SECONDS = 10.0

log = logging.getLogger(__name__)

clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets that a server runs with."""

    pepper: bytes
    admin_token: str


@dataclass(kw_only=True)
class House:
    """All that is built: two applications and what stands behind them."""

    relay: Relay
    control: Litestar
    pumps: Pumps
    shipper: Shipper
    stopping: bool = False

    def readiness(self) -> tuple[int, bytes]:
        """Say whether requests should be sent here."""
        if self.stopping:
            return 503, b'{"status":"stopping"}'
        degraded = [] if self.shipper.has_room() else ["ledger"]
        return 200, json.dumps({"status": "ready", "degraded": degraded}).encode()


def register_team(database: Database, name: str) -> Team:
    """Make a team."""
    return teams.create(database, team_id=mint_id(secrets.choice), name=check_name(name), now=clock.now())


def issue_key(
    database: Database, pepper: bytes, team: str, name: str | None, expires_at: datetime | None
) -> tuple[Key, str]:
    """Make a key; returns it with its secret."""
    now = clock.now()
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise ValueError("'expires_at' must be a time to come, with its offset from UTC")
    minting = Minting(secrets.choice, now, pepper)
    checked = None if name is None else check_name(name)
    return keys.issue(database, team=team, name=checked, expires_at=expires_at, minting=minting)


def new_event_id() -> str:
    """Mint an event's id."""
    return uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10))


@contextlib.asynccontextmanager
async def build(settings: Settings, database: Database, credentials: Credentials) -> AsyncIterator[House]:
    """Build the house, and take it down in the right order."""
    metrics = instruments.Metrics()
    shipper = Shipper(
        lambda events: ledger.append(database, events, clock.now()),
        upkeep=database.checkpoint,
        queued_max=settings.events_queued_max,
    )
    gate = Gate(
        find_grant=lambda key_digest: asyncio.to_thread(keys.find_grant, database, key_digest),
        digest=partial(digest, pepper=credentials.pepper),
        clock=clock,
    )
    pumps = Pumps()
    local: dict[str, Local] = {"/health/live": lambda: (200, b'{"status":"live"}')}
    upstreams = _upstreams(settings)
    relay = Relay(
        gate=gate,
        upstreams=upstreams,
        pumps=pumps,
        accounting=_accounting(shipper, metrics),
        limits=Limits(settings.body_bytes_max, settings.hangup_grace_seconds, settings.stream_usage),
        clock=clock,
        local=local,
    )
    control = _control(settings, database, credentials, metrics)
    house = House(relay=relay, control=control, pumps=pumps, shipper=shipper)
    local["/health/ready"] = house.readiness
    metrics.gauge("meter_inflight_requests", "Upstream attempts under way.", lambda: len(pumps))
    metrics.gauge("meter_events_queued", "Events on their way to the ledger.", lambda: len(shipper))
    shipper.start()
    try:
        yield house
    finally:
        await pumps.drain(0)
        await gate.aclose()
        await asyncio.gather(*(upstream.aclose() for upstream in upstreams))
        left = await asyncio.to_thread(shipper.close, CLOSING_SECONDS)
        if left:
            log.error("%d events could not be delivered to the ledger and are lost", left)


class Listeners(NamedTuple):
    """The sockets that a process serves: both, or one of them beside other processes."""

    data: socket.socket | None
    control: socket.socket | None


async def serve(
    settings: Settings,
    database: Database,
    credentials: Credentials,
    listeners: Listeners,
    stop: asyncio.Event,
) -> None:
    """Serve the sockets until `stop` is set, then finish what is under way and close everything."""
    async with build(settings, database, credentials) as house:
        data = None if listeners.data is None else _server(house.relay, settings)
        control = None if listeners.control is None else _server(house.control, settings)
        serving = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in ((data, listeners.data), (control, listeners.control))
            if server is not None and listener is not None
        ]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        await _stop(house, settings, data, control)
        stopped.cancel()
        await asyncio.gather(*serving)


async def _stop(
    house: House, settings: Settings, data: uvicorn.Server | None, control: uvicorn.Server | None
) -> None:
    log.info("stopping: %d requests under way", len(house.pumps))
    house.stopping = True
    await asyncio.sleep(settings.shutdown_delay_seconds)
    if data is not None:
        data.should_exit = True
    await house.pumps.drain(settings.shutdown_timeout_seconds)
    if control is not None:
        control.should_exit = True


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; nobody else handles signals."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _upstreams(settings: Settings) -> tuple[Upstream, ...]:
    timeouts = Timeouts(
        connect=settings.connect_timeout_seconds,
        headers=settings.headers_timeout_seconds,
        idle=settings.idle_timeout_seconds,
    )
    trusted = ssl.create_default_context()
    return tuple(Upstream(entry, _transport(entry, trusted), timeouts) for entry in settings.upstreams)


def _transport(upstream: UpstreamSettings, trusted: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    if upstream is SAMPLE:
        return SampleTransport(clock)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS_KEPT_MAX)
    return httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=limits)


def _accounting(shipper: Shipper, metrics: instruments.Metrics) -> Accounting:
    def record(event: UsageEvent, grant: Grant) -> None:
        shipper.accept(event)
        metrics.observe(event, grant.team_name)

    return Accounting(
        new_id=new_event_id,
        has_room=shipper.has_room,
        record=record,
        refused=metrics.refuse,
        count_tokens=count_tokens,
        estimate_prompt=estimate_prompt,
    )


def _control(
    settings: Settings, database: Database, credentials: Credentials, metrics: instruments.Metrics
) -> Litestar:
    def list_keys(team: str | None) -> list[Key]:
        team_id = None if team is None else teams.find(database, team).id
        return keys.list_all(database, team_id=team_id)

    services = {
        "teams": Teams(partial(register_team, database), partial(teams.list_all, database)),
        "keys": Keys(
            partial(issue_key, database, credentials.pepper),
            list_keys,
            lambda reference: keys.revoke(database, reference, clock.now()),
            lambda reference, mode: keys.change(database, reference, stream_usage=mode),
        ),
        "scrape": Scrape(metrics.render, instruments.CONTENT_TYPE),
    }
    hosts = (*settings.admin_hosts, settings.admin_host)
    return build_control(guard=guard(credentials.admin_token, hosts), services=services)


class _Server(uvicorn.Server):
    """A server that leaves the signals to this module: two of them would take each other's handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(application: Relay | Litestar, settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.shutdown_timeout_seconds + CLOSING_SECONDS),
    )
    return _Server(config)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address; raises `OSError` where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    try:
        yield listener
    finally:
        listener.close()


def address(listener: socket.socket) -> str:
    """Return the URL under which a listener is reached from this machine."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
