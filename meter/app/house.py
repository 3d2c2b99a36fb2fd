"""One process's house: what is built, how it is connected, and the order in which it closes.

Closing runs in the order of the data: no new requests, then the pumps, then the shipper, then the database.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
from litestar import Litestar

from meter import metrics as instruments
from meter.app.actions import clock, new_event_id
from meter.app.alerting import keep_delivering
from meter.app.bounding import Doors, doors, limits_of, load_of
from meter.app.budgeting import Office
from meter.app.control import Credentials, Desk
from meter.app.control import control as build_control
from meter.app.figures import Figures
from meter.app.key_budgets import KeyBudgets
from meter.app.key_view import KeyViewer
from meter.app.limiting import Limiting, defaults, prompt_tokens
from meter.app.rating import Rater, keep_fresh, load_first
from meter.app.refusals import Refusals
from meter.app.retaining import keep_retained
from meter.app.showing import Parts, count_adopted, show
from meter.app.unpriced import UnpricedGate
from meter.app.upstreams import open_upstreams
from meter.core.attempts import Attempt, interrupted
from meter.core.errors import MeterError, MeteringUnavailable
from meter.core.estimate import count_tokens, estimate_prompt
from meter.core.events import UsageEvent
from meter.core.guesses import Guesses
from meter.core.keys import Grant, Snapshot, digester
from meter.core.request_log import of_event, of_refusal
from meter.datadir import GRANTS_FILE, JOURNAL_FOLDER, save
from meter.journal.holding import Holding, Ledger, Options
from meter.journal.journal import Journal
from meter.proxy.account import Accounting
from meter.proxy.admission import Admission, allow_models
from meter.proxy.concurrency import Concurrency
from meter.proxy.connections import Local
from meter.proxy.gate import Gate
from meter.proxy.pump import Pumps
from meter.proxy.relay import Relay
from meter.rates import Rates, Shared
from meter.settings import Settings
from meter.store import budgets as budget_store
from meter.store import keys, partitions
from meter.store import refusals as refusals_table
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable, RowRefused

LOOK_UPS_AT_ONCE_MAX = 4
TOKEN_LOOK_UPS_AT_ONCE_MAX = 2
# From here on the ledger's being behind is worth telling a load balancer.
LATE_SECONDS = 10.0

log = logging.getLogger(__name__)
requests_log = logging.getLogger("meter.requests")


@dataclass(frozen=True, kw_only=True)
class Premises:
    """What a house is built on."""

    settings: Settings
    database: Database
    credentials: Credentials
    prepare: Callable[[], None]
    """Makes the database ready for this meter; called until it succeeds."""
    share: Callable[[str], Shared]
    """Makes the counters that servers share, of the URL of Redis; called where there is one."""
    holder: str = "server"
    """What this process's journal is called by."""
    shows_metrics: bool = True
    """Whether this process is asked for the page of metrics."""
    dropped_lines: Callable[[], int] = lambda: 0
    """How many lines of the log were lost, because nobody takes them."""


@dataclass
class House:
    """All that is built: two applications and what stands behind them."""

    relay: Relay
    control: Litestar
    pumps: Pumps
    gate: Gate
    holding: Holding
    doors: Doors
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


@contextlib.asynccontextmanager
async def build(premises: Premises) -> AsyncIterator[House]:
    """Build the house, and take it down in the right order."""
    settings, database = premises.settings, premises.database
    metrics, pumps, stopping = instruments.Metrics(), Pumps(), asyncio.Event()
    look_ups = ThreadPoolExecutor(LOOK_UPS_AT_ONCE_MAX, thread_name_prefix="look-up")
    gate = _gate(premises, look_ups)
    rater = Rater(database, settings)
    await load_first(rater)
    unpriced = UnpricedGate(lambda: rater.book, settings.unpriced)
    # A name of its own for every start: the journal of the last one is adopted like any other.
    holder = f"{premises.holder}-{new_event_id()}"
    budgets = Office(database, settings, holder, lambda: rater.book)
    await budgets.open()
    holding = _holding(premises, holder, gate, Closing(rater, budgets, metrics))
    refusals = Refusals(clock, partial(refusals_table.add, database))
    upstreams = open_upstreams(settings)
    shared = None if settings.redis_url is None else premises.share(settings.redis_url.reveal())
    if shared is not None:
        await shared.open()
    limiting = _limiting(settings, shared)
    key_budgets = KeyBudgets(partial(budget_store.standings, database), look_ups, budgets.clock)
    local: dict[str, Local] = {"/health/live": lambda: (200, b'{"status":"live"}')}
    accounting = _accounting(holding.journal, metrics, rater, refusals, access_log=settings.access_log)
    entered = doors(settings, metrics, local, lambda refusal: accounting.refused(refusal, None))
    steps = (allow_models, unpriced.step, limiting.concurrency.admit, limiting.count, budgets.step)
    relay = Relay(
        gate=gate,
        admission=Admission(steps),
        show_key=KeyViewer(limiting, key_budgets.find, clock).show,
        upstreams=upstreams,
        pumps=pumps,
        accounting=accounting,
        load=load_of(settings, metrics, entered.data),
        limits=limits_of(settings),
        clock=budgets.clock,
        local=local,
        stopping=stopping.is_set,
    )
    token_look_ups = ThreadPoolExecutor(TOKEN_LOOK_UPS_AT_ONCE_MAX, thread_name_prefix="token-look-up")
    control = build_control(_desk(premises, token_look_ups, metrics))
    house = House(relay, control, pumps, gate, holding, entered, stopping)
    local["/health/ready"] = house.readiness
    upkeeps = [
        metrics.keep_fresh(),
        keep_fresh(rater),
        budgets.keep(),
        refusals.keep_flushed(),
        *(door.keep_watch() for door in entered),
        keep_retained(database, settings.retention_months, budgets.clock.now),
        keep_delivering(database, settings, budgets.clock.now),
        *_shared_upkeep(shared),
        *_show(premises, metrics, house, budgets.clock.now),
    ]
    try:
        async with _running(upkeeps):
            yield house
    finally:
        await pumps.drain(0)
        await gate.aclose()
        look_ups.shutdown()
        token_look_ups.shutdown()
        await asyncio.gather(*(upstream.aclose() for upstream in upstreams))
        await _close_books(budgets, holding)
        # What was counted since the last time would be lost with the process.
        metrics.catch_up()


async def _close_books(budgets: Office, holding: Holding) -> None:
    # The journal is written by this thread alone, so it is also closed by it; nobody waits any more.
    await budgets.treasury.aclose()
    holding.close()
    budgets.teller.close()


def _desk(premises: Premises, look_ups: ThreadPoolExecutor, metrics: instruments.Metrics) -> Desk:
    return Desk(
        settings=premises.settings,
        database=premises.database,
        credentials=premises.credentials,
        look_ups=look_ups,
        render_metrics=metrics.render,
        metrics_content_type=instruments.CONTENT_TYPE,
    )


def _show(
    premises: Premises, metrics: instruments.Metrics, house: House, now: Callable[[], datetime]
) -> list[Coroutine[Any, Any, None]]:
    """Show the numbers of the moment; returns what keeps them fresh."""
    shown = instruments.LedgerFigures(clock.monotonic)
    figures = Figures(premises.database, shown, now)
    show(metrics, Parts(house.pumps, house.holding, house.gate, figures))
    metrics.follow("meter_log_lines_dropped", "Lines of the log that nobody took.", premises.dropped_lines)
    if not premises.shows_metrics:
        return []
    metrics.show(shown)
    return [figures.keep_fresh()]


def _shared_upkeep(shared: Shared | None) -> list[Coroutine[Any, Any, None]]:
    return [] if shared is None else [shared.run()]


@contextlib.asynccontextmanager
async def _running(upkeeps: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run what goes on until it is cancelled."""
    tasks = [asyncio.create_task(upkeep) for upkeep in upkeeps]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _gate(premises: Premises, look_ups: Executor) -> Gate:
    gate = Gate(
        find_grant=partial(_find_grant, premises.database, look_ups),
        digest=digester(premises.credentials.pepper),
        clock=clock,
        stale_seconds_max=premises.settings.grants_stale_seconds_max,
        guesses=Guesses(premises.settings.auth_failures_rpm, premises.settings.trusted_proxies),
    )
    gate.take_snapshot(_saved_snapshot(premises.settings))
    return gate


def _limiting(settings: Settings, shared: Shared | None) -> Limiting:
    unset = defaults(settings)
    return Limiting(
        defaults=unset,
        rates=Rates(clock=clock, shared=shared),
        concurrency=Concurrency(unset),
        likely_tokens=prompt_tokens,
    )


class Closing(NamedTuple):
    """What becomes of events on their way to the ledger."""

    rater: Rater
    budgets: Office
    metrics: instruments.Metrics


def _holding(premises: Premises, holder: str, gate: Gate, closing: Closing) -> Holding:
    settings, database = premises.settings, premises.database
    rater, budgets, metrics = closing
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

    count = count_adopted(database, metrics, loop)

    def finished(gone: str, settled: Sequence[UsageEvent]) -> None:
        budgets.teller.release(gone)
        count(settled)

    options = Options(
        root=settings.data_dir / JOURNAL_FOLDER,
        holder=holder,
        power=settings.durability == "power",
        bytes_max=settings.journal_bytes_max,
    )
    return Holding(
        options,
        ledger=Ledger(budgets.append, RowRefused, database.hang_up),
        upkeep=upkeep,
        interrupted=lambda attempt, emitted: rater.rate(interrupted(attempt, emitted)),
        finished=finished,
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


def _accounting(
    journal: Journal, metrics: instruments.Metrics, rater: Rater, refusals: Refusals, *, access_log: bool
) -> Accounting:
    def refused(refusal: MeterError, grant: Grant | None) -> None:
        metrics.refuse(refusal.code)
        refusals.count(refusal, grant)
        if access_log:
            requests_log.info("refused", extra={"fields": of_refusal(refusal, grant)})

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
        if access_log:
            requests_log.info("request", extra={"fields": of_event(event, grant.team_name)})
        return safe

    return Accounting(
        new_id=new_event_id,
        begin=begin,
        progress=journal.progress,
        rate=rater.rate,
        settle=settle,
        timed=metrics.time,
        refused=refused,
        count_tokens=count_tokens,
        estimate_prompt=estimate_prompt,
    )
