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
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal, NamedTuple

import httpx
import msgspec
import uvicorn
from litestar import Litestar

from meter import metrics as instruments
from meter.core.attempts import Attempt
from meter.core.clock import Clock
from meter.core.errors import MeteringUnavailable
from meter.core.estimate import count_tokens, estimate_prompt
from meter.core.events import UsageEvent, uuid7
from meter.core.keys import Grant, Key, Minting, Snapshot, digest, mint_id
from meter.core.teams import Team, check_name
from meter.datadir import GRANTS_FILE, JOURNAL_FOLDER, save
from meter.journal.holding import Holding, Options
from meter.journal.journal import Journal
from meter.proxy.gate import Gate
from meter.proxy.protocol import DataProtocol
from meter.proxy.pump import Pumps
from meter.proxy.relay import Accounting, Limits, Local, Relay
from meter.proxy.sample import SampleTransport
from meter.proxy.upstream import Timeouts, Upstream
from meter.settings import Settings, UpstreamSettings
from meter.store import keys, ledger, partitions, teams
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable, RowRefused
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
LOOK_UPS_AT_ONCE_MAX = 4
# From here on the ledger's being behind is worth telling a load balancer.
LATE_SECONDS = 10.0

log = logging.getLogger(__name__)

clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets that a server runs with."""

    pepper: bytes
    admin_token: str


@dataclass(frozen=True, kw_only=True)
class Premises:
    """What a house is built on."""

    settings: Settings
    database: Database
    credentials: Credentials
    prepare: Callable[[], None]
    """Makes the database ready for this meter; called until it succeeds."""
    holder: str = "server"
    """What this process's journal is called by."""


@dataclass(kw_only=True)
class House:
    """All that is built: two applications and what stands behind them."""

    relay: Relay
    control: Litestar
    pumps: Pumps
    gate: Gate
    holding: Holding
    stopping: asyncio.Event

    def readiness(self) -> tuple[int, bytes]:
        """Say whether requests should be sent here."""
        if self.stopping.is_set():
            return 503, b'{"status":"stopping"}'
        if not self.gate.has_snapshot:
            return 503, b'{"status":"no keys are known yet"}'
        if not self.holding.journal.admits():
            return 503, b'{"status":"the journal takes no records"}'
        late = self.holding.waiting and self.holding.shipper.lag_seconds > LATE_SECONDS
        reasons = {"database": self.gate.database_away, "ledger": late}
        degraded = [name for name, applies in reasons.items() if applies]
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
async def build(premises: Premises) -> AsyncIterator[House]:
    """Build the house, and take it down in the right order."""
    settings, database, credentials = premises.settings, premises.database, premises.credentials
    metrics = instruments.Metrics()
    pumps = Pumps()
    stopping = asyncio.Event()
    look_ups = ThreadPoolExecutor(LOOK_UPS_AT_ONCE_MAX, thread_name_prefix="look-up")
    gate = Gate(
        find_grant=partial(_find_grant, database, look_ups),
        digest=partial(digest, pepper=credentials.pepper),
        clock=clock,
        stale_seconds_max=settings.grants_stale_seconds_max,
    )
    gate.take_snapshot(_saved_snapshot(settings))
    holding = _holding(premises, gate)
    upstreams = _upstreams(settings)
    local: dict[str, Local] = {"/health/live": lambda: (200, b'{"status":"live"}')}
    relay = Relay(
        gate=gate,
        upstreams=upstreams,
        pumps=pumps,
        accounting=_accounting(holding.journal, metrics),
        limits=Limits(settings.body_bytes_max, settings.hangup_grace_seconds, settings.stream_usage),
        clock=clock,
        local=local,
        stopping=stopping.is_set,
    )
    control = _control(settings, database, credentials, metrics)
    house = House(relay=relay, control=control, pumps=pumps, gate=gate, holding=holding, stopping=stopping)
    local["/health/ready"] = house.readiness
    _show(metrics, pumps, holding)
    fresh = asyncio.create_task(metrics.keep_fresh())
    try:
        yield house
    finally:
        fresh.cancel()
        await pumps.drain(0)
        await gate.aclose()
        look_ups.shutdown()
        await asyncio.gather(*(upstream.aclose() for upstream in upstreams))
        # The journal is written by this thread alone, so it is also closed by it; nobody waits any more.
        holding.close()


def _show(metrics: instruments.Metrics, pumps: Pumps, holding: Holding) -> None:
    metrics.gauge("meter_inflight_requests", "Upstream attempts under way.", lambda: len(pumps))
    metrics.gauge("meter_journal_records", "Events on their way to the ledger.", lambda: holding.waiting)
    metrics.gauge(
        "meter_journal_oldest_seconds",
        "How long ago everything was in the ledger.",
        lambda: holding.shipper.lag_seconds if holding.waiting else 0.0,
        across="max",
    )
    metrics.gauge("meter_quarantined_records", "What could not be shipped.", lambda: len(holding.quarantine))


def _holding(premises: Premises, gate: Gate) -> Holding:
    settings, database = premises.settings, premises.database
    loop = asyncio.get_running_loop()
    prepared = threading.Event()

    def upkeep() -> None:
        if not prepared.is_set():
            # The database may have been away when this process started.
            premises.prepare()
            prepared.set()
        database.checkpoint()
        partitions.make_partitions(database, clock.now())
        snapshot = keys.snapshot(database, clock.now())
        save(settings.data_dir / GRANTS_FILE, msgspec.msgpack.encode(snapshot))
        loop.call_soon_threadsafe(gate.take_snapshot, snapshot)

    options = Options(
        root=settings.data_dir / JOURNAL_FOLDER,
        # A name of its own for every start: the journal of the last one is adopted like any other.
        holder=f"{premises.holder}-{new_event_id()}",
        power=settings.durability == "power",
        bytes_max=settings.journal_bytes_max,
    )
    return Holding(
        options,
        sink=lambda events: ledger.append(database, events, clock.now()),
        refusal=RowRefused,
        upkeep=upkeep,
    )


def _saved_snapshot(settings: Settings) -> Snapshot:
    path = settings.data_dir / GRANTS_FILE
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return Snapshot(None, {})
    except ValueError as fault:
        log.warning("the snapshot of keys in %s cannot be read: %s", path, fault)
        return Snapshot(None, {})


async def _find_grant(database: Database, look_ups: Executor, key_digest: bytes) -> Grant | None:
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(look_ups, keys.find_grant, database, key_digest)
    except DatabaseUnavailable as fault:
        raise MeteringUnavailable(f"The database is away: {fault}") from fault


class Listeners(NamedTuple):
    """The sockets that a process serves: both, or one of them beside other processes."""

    data: socket.socket | None
    control: socket.socket | None


async def serve(premises: Premises, listeners: Listeners, stop: asyncio.Event) -> None:
    """Serve the sockets until `stop` is set, then finish what is under way and close everything."""
    settings = premises.settings
    async with build(premises) as house:
        data = None if listeners.data is None else _server(house.relay, settings, DataProtocol)
        control = None if listeners.control is None else _server(house.control, settings, "httptools")
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
    house.stopping.set()
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


def _accounting(journal: Journal, metrics: instruments.Metrics) -> Accounting:
    def begin(attempt: Attempt) -> None:
        try:
            if journal.admits():
                journal.intent(attempt)
                return
        except OSError as fault:
            log.warning("an attempt was refused: %s", fault)
        raise MeteringUnavailable("The journal has no room to account for this request; try again soon.")

    def settle(event: UsageEvent, grant: Grant) -> Awaitable[None]:
        safe = journal.settle(event)
        metrics.observe(event, grant.team_name)
        return safe

    return Accounting(
        new_id=new_event_id,
        begin=begin,
        progress=journal.progress,
        settle=settle,
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


def _server(
    application: Relay | Litestar, settings: Settings, protocol: type[asyncio.Protocol] | Literal["httptools"]
) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        http=protocol,
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
