"""Budgets of real servers: bursts on room for a few, oversized requests, kills, pauses and outages."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meter.app.actions import clock
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind, charged
from meter.core.events import UsageEvent
from meter.store import allowances, budgets, ledger
from tests import server, services, wire
from tests.fake_upstream import Gate
from tests.faults import traffic
from tests.faults.script import CANARY_CREDENTIAL, Plan
from tests.faults.site import POSTGRESQL, SQLITE, Site, opened
from tests.faults.traffic import Got
from tests.server import Meter

MODEL = "strict-model"
MAX_TOKENS = 100
USD_PER_MILLION = 1
PICODOLLARS_A_TOKEN = 10**6
# What the likely size of an answer is before anything is known; see `docs/quota.md`.
PIECES_OF_LONG_ANSWERS = 997
OFFERED = 200
ROOM = 7
# Servers beat every two seconds, give back every half, and look for the journals of the dead every ten.
QUIET_SECONDS_MAX = 60.0
UNDECIDED = 503
TIMES_MAX = 20
BODY = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "How much?"}], "max_tokens": MAX_TOKENS}
).encode()
REQUEST_TOKENS_MAX = len(BODY) + MAX_TOKENS
NEEDS = {
    Measure.REQUESTS: 1,
    Measure.TOKENS: REQUEST_TOKENS_MAX,
    Measure.COST: REQUEST_TOKENS_MAX * PICODOLLARS_A_TOKEN,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How many servers there are, of how many processes, on which database."""

    database: str
    workers: int = 1
    servers: int = 1

    def __str__(self) -> str:
        return f"{self.database:10}  {self.workers:7}  {self.servers:7}"


SETTINGS = (
    Setting(database=SQLITE),
    Setting(database=POSTGRESQL),
    Setting(database=POSTGRESQL, workers=4),
    Setting(database=POSTGRESQL, servers=2),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table, and what was wrong."""

    setting: Setting
    experiment: str
    enforcement: str = ""
    measure: str = ""
    offered: int = 0
    admitted: int = 0
    limit: int = 0
    overshoot: int = 0
    falsely_refused: int = 0
    faults: tuple[str, ...] = ()
    kills: int = 0
    """Processes that were killed for it."""
    left: int = 0
    """Clients that left and upstreams that stalled."""
    crashes: int = 0
    """The same in process: crashes, and requests that were taken back."""
    cancels: int = 0
    unheard: int = 0
    """Answers of the database that were late, lost or never came."""


@dataclass
class Town:
    """Servers on one database, and the keys of their clients."""

    site: Site
    setting: Setting
    beside: list[Meter] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """Where clients may ask."""
        return [self.site.url, *(each.url for each in self.beside)]

    def key(self, name: str, **fields: object) -> Budget:
        """Make a key with a budget of its own; servers know it when they start next."""
        self.keys[name] = self.site.running.new_key()
        key_id = self.keys[name].split("_")[1]
        values: dict[str, object] = {
            "id": name[:32],
            "owner_kind": OwnerKind.KEY,
            "owner_id": key_id,
            "measure": Measure.REQUESTS,
            "period": "total",
            "limit": ROOM,
            "enforcement": Enforcement.STRICT,
        }
        made = Budget(**values | fields)  # type: ignore[arg-type]
        return budgets.put(self.site.database, made, Signature("quota", clock.now())).budget

    def price(self, model: str = MODEL) -> None:
        """Give a model a price."""
        usd = str(USD_PER_MILLION)
        done = self.site.running.run(
            "prices", "set", model, "--prompt", usd, "--completion", usd, "--from", "2020-01-01"
        )
        assert done.returncode == 0, done.stderr

    def open(self) -> None:
        """Start the servers anew, so that they know every budget."""
        if self.setting.workers > 1:
            self.site.settings["workers"] = self.setting.workers
        self.site.restart()
        for number in range(1, self.setting.servers):
            folder = self.site.data_dir.parent / f"beside-{number}"
            self.beside.append(beside(self.site, folder))

    def close(self) -> None:
        """End the servers beside the first."""
        for each in self.beside:
            each.stop(signal.SIGKILL)

    def events(self, name: str) -> list[UsageEvent]:
        """Return the ledger's events of a key."""
        key_id = self.keys[name].split("_")[1]
        return [event for each in self.site.events().values() for event in each if event.key_id == key_id]

    def stands(self, name: str) -> tuple[int, int]:
        """Return what is spent and reserved of a key's budget."""
        found = budgets.standings(self.site.database, clock.now())
        return next((each.spent, each.reserved) for each in found if each.budget.id == name[:32])

    def exact(self, name: str, count: int, measure: Measure) -> list[str]:
        """Wait until so many events are in the ledger and nothing is reserved; returns what is wrong."""
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        while time.monotonic() < deadline:
            if len(self.events(name)) >= count and self.stands(name)[1] == 0:
                break
            time.sleep(0.05)
        spent, reserved = self.stands(name)
        events = self.events(name)
        expected = sum(charged(event).of(measure) for event in events)
        found = [] if len(events) == count else [f"{name}: {len(events)} events for {count} requests"]
        found += [] if reserved == 0 else [f"{name}: {reserved} stay reserved"]
        found += [] if spent == expected else [f"{name}: spent {spent}, the ledger has {expected}"]
        return found


def beside(site: Site, folder: Path, **settings: object) -> Meter:
    """Start a server with a data directory of its own on the same database."""
    shared = {
        "upstream_url": site.script.upstream.url,
        "upstream_api_key": CANARY_CREDENTIAL,
        "database_url": site.database_url,
    }
    return Meter(folder, server.environment(folder, **(shared | site.settings | settings)), [])


@contextlib.contextmanager
def town(setting: Setting, url: str | None = None, **settings: object) -> Iterator[Town]:
    """Open servers, one of them running; `url` is a database of the caller's."""
    with opened(setting.database, url, **settings) as site:
        site.start()
        made = Town(site, setting)
        try:
            yield made
        finally:
            made.close()


async def ask(url: str, key: str, body: bytes = BODY) -> Got:
    """Send one request, and read its answer."""
    got = Got(MODEL)
    reader, writer = await open_towards(url, key, body)
    try:
        await traffic.read_all(reader, writer, got)
    except OSError as fault:
        got.fault = type(fault).__name__
    finally:
        writer.close()
    return got


async def insist(url: str, key: str, body: bytes = BODY) -> Got:
    """Ask until somebody could decide: where the machine stalls, the database may not be heard of in time."""
    got = await ask(url, key, body)
    for _ in range(TIMES_MAX):
        if got.status == UNDECIDED:
            got = await ask(url, key, body)
    return got


async def open_towards(url: str, key: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one request, and leave the answer to the caller."""
    reader, writer = await asyncio.open_connection(*_address(url))
    headers = [("Content-Type", "application/json")]
    writer.write(wire.request("POST", "/v1/chat/completions", key=key, body=body, headers=headers))
    return reader, writer


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


async def burst(found: Town, name: str, offered: int, gate: Gate) -> tuple[int, list[Got]]:
    """Ask so often at once; those at the upstream stay there until all have been decided."""
    urls = found.urls
    before = found.site.script.count
    asking = [
        asyncio.create_task(insist(urls[number % len(urls)], found.keys[name])) for number in range(offered)
    ]

    def decided() -> bool:
        return found.site.script.count - before + sum(task.done() for task in asking) >= offered

    try:
        await traffic.until(decided, "every request to be decided", QUIET_SECONDS_MAX)
        admitted = found.site.script.count - before
    finally:
        gate.open()
    return admitted, list(await asyncio.gather(*asking))


def bursts(setting: Setting, offered: int = OFFERED) -> Iterator[Row]:
    """Q1: room for a few, and many at once, by every measure; then as many again for what is left."""
    with town(setting) as found:
        limits = {measure: ROOM * need + need // 2 for measure, need in NEEDS.items()}
        for measure, limit in limits.items():
            found.key(measure, measure=measure, limit=limit)
            found.key(f"std-{measure}", measure=measure, limit=limit, enforcement=Enforcement.STANDARD)
        found.price()
        found.open()
        for measure, limit in limits.items():
            yield _strict(found, measure, limit, offered)
        for measure, limit in limits.items():
            yield _standard(found, measure, limit, offered)


def many(setting: Setting) -> Iterator[Row]:
    """F68: 500 at once on one budget."""
    with town(setting) as found:
        measure = Measure.REQUESTS
        found.key(measure, measure=measure, limit=ROOM)
        found.open()
        yield replace(_strict(found, measure, ROOM, 500), experiment="F68: 500 at once")


def _strict(found: Town, measure: Measure, limit: int, offered: int) -> Row:
    gate = Gate()
    found.site.script.play(Plan(before_head=gate, streams=False))
    admitted, gots = asyncio.run(burst(found, measure, offered, gate))
    refused = [got for got in gots if got.status == 429]
    faults = found.exact(measure, admitted, measure)
    if len(refused) != offered - admitted:
        faults.append(f"{offered - admitted - len(refused)} were neither admitted nor refused by the budget")
    if any(b"insufficient_quota" not in got.raw or b"reserved" not in got.raw for got in refused):
        faults.append("a refusal does not say why")
    # What has come back, because less was used than reserved, is there for the next ones.
    room = (limit - found.stands(measure)[0]) // NEEDS[measure]
    left = min(1, room)
    got = asyncio.run(ask(found.urls[0], found.keys[measure]))
    if (got.status == 200) != bool(left):
        faults.append(f"with room for {room} more, the next one got {got.status}")
    spent = found.stands(measure)[0]
    return Row(
        setting=found.setting,
        experiment="Q1",
        enforcement=Enforcement.STRICT,
        measure=measure,
        offered=offered,
        admitted=admitted,
        limit=limit,
        overshoot=max(0, spent - limit),
        falsely_refused=max(0, ROOM - admitted),
        faults=(*faults, *([] if admitted == ROOM else [f"{admitted} were admitted on room for {ROOM}"])),
    )


def _standard(found: Town, measure: Measure, limit: int, offered: int) -> Row:
    """Ask for answers that are longer than anybody could expect."""
    name = f"std-{measure}"
    gate = Gate()
    found.site.script.play(Plan(before_head=gate, streams=False, pieces=PIECES_OF_LONG_ANSWERS))
    admitted, _ = asyncio.run(burst(found, name, offered, gate))
    faults = found.exact(name, admitted, measure)
    events = found.events(name)
    more = sum(
        max(0, charged(event).of(measure) - sum(part.amount for part in _reserved(event))) for event in events
    )
    spent = found.stands(name)[0]
    overshoot = max(0, spent - limit)
    if overshoot > more:
        faults.append(f"passed by {overshoot}, and events passed their reservations by {more}")
    return Row(
        setting=found.setting,
        experiment="Q1",
        enforcement=Enforcement.STANDARD,
        measure=measure,
        offered=offered,
        admitted=admitted,
        limit=limit,
        overshoot=overshoot,
        falsely_refused=_room_left(events, limit, admitted, offered),
        faults=tuple(faults),
    )


def _room_left(events: Sequence[UsageEvent], limit: int, admitted: int, offered: int) -> int:
    """Return how many more had fitted beside what those under way had reserved."""
    amounts: list[int] = [sum(part.amount for part in _reserved(event)) for event in events]
    if admitted == offered or not amounts:
        return 0
    return max(0, limit - sum(amounts)) // max(amounts)


def _reserved(event: UsageEvent) -> list[Any]:
    parts: list[Any] = list(event.reserved)
    return [part if hasattr(part, "amount") else _Part(*part) for part in parts]


@dataclass(frozen=True)
class _Part:
    allowance: int
    amount: int


def oversized(setting: Setting) -> Iterator[Row]:
    """Q8: a request that is larger than its budget is refused before the upstream, and not made smaller."""
    with town(setting) as found:
        found.key("small", measure=Measure.TOKENS, limit=NEEDS[Measure.TOKENS] - 1)
        found.open()
        found.site.script.play(Plan(streams=False))
        got = asyncio.run(ask(found.urls[0], found.keys["small"]))
        said = bytes(got.raw)
        need = NEEDS[Measure.TOKENS]
        faults = [] if got.status == 429 else [f"the answer was {got.status}"]
        faults += [] if not found.site.script.count else ["it reached the upstream"]
        faults += [] if f"{need} tokens".encode() in said else [f"the refusal has no numbers: {said!r}"]
        yield Row(
            setting=setting,
            experiment="Q8",
            enforcement=Enforcement.STRICT,
            measure=Measure.TOKENS,
            offered=1,
            admitted=found.site.script.count,
            limit=need - 1,
            faults=tuple(faults),
        )


def kills(setting: Setting, count: int) -> Iterator[Row]:
    """Q3 and Q4: kill -9 with requests under way, again and again; the next server makes everything exact."""
    with town(setting) as found:
        limit = count * ROOM * NEEDS[Measure.TOKENS] * 2
        found.key("killed", measure=Measure.TOKENS, limit=limit)
        found.open()
        sent = 0
        faults: list[str] = []
        for number in range(count):
            gate = Gate()
            found.site.script.play(Plan(before_head=gate, streams=False))
            asyncio.run(_killed(found, gate))
            sent += ROOM
            found.site.start()
            faults += [f"kill {number}: {each}" for each in found.exact("killed", sent, Measure.TOKENS)]
        found.site.script.play(Plan(streams=False))
        got = asyncio.run(ask(found.urls[0], found.keys["killed"]))
        faults += [] if got.status == 200 else [f"afterwards a request got {got.status}"]
        faults += found.exact("killed", sent + 1, Measure.TOKENS)
        faults += ledger.verify(found.site.database)
        yield Row(
            setting=setting,
            experiment=f"Q3/Q4: {count} kills",
            enforcement=Enforcement.STRICT,
            measure=Measure.TOKENS,
            offered=sent + 1,
            admitted=len(found.events("killed")),
            limit=limit,
            overshoot=max(0, found.stands("killed")[0] - limit),
            falsely_refused=int(got.status == 429),
            kills=count,
            faults=tuple(faults),
        )


async def _killed(found: Town, gate: Gate) -> None:
    asking = [asyncio.create_task(ask(found.urls[0], found.keys["killed"])) for _ in range(ROOM)]
    await traffic.until(lambda: found.site.script.count >= ROOM, "all at the upstream", QUIET_SECONDS_MAX)
    await asyncio.to_thread(found.site.kill)
    gate.open()
    await asyncio.gather(*asking)


def paused(setting: Setting) -> Iterator[Row]:
    """F16/F70: a server stopped for longer than its lease keeps what it holds, and nobody gets it."""
    with town(setting) as found:
        found.key("paused", limit=ROOM)
        found.open()
        gate = Gate()
        found.site.script.play(Plan(before_head=gate, streams=False))
        faults, admitted = asyncio.run(_paused(found, gate))
        faults += found.exact("paused", admitted, Measure.REQUESTS)
        yield Row(
            setting=setting,
            experiment="F16/F70: SIGSTOP",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=ROOM * 3,
            admitted=admitted,
            limit=ROOM,
            overshoot=max(0, found.stands("paused")[0] - ROOM),
            falsely_refused=max(0, ROOM - admitted),
            faults=tuple(faults),
        )


async def _paused(found: Town, gate: Gate) -> tuple[list[str], int]:
    first, other = found.urls
    key = found.keys["paused"]
    held = 3
    asking = [asyncio.create_task(ask(first, key)) for _ in range(held)]
    await traffic.until(lambda: found.site.script.count == held, "all at the upstream")
    found.site.running.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(allowances.ALIVE_SECONDS + 2)
    holders = allowances.list_holders(found.site.database, clock.now())
    faults = [] if any(each.stranded for each in holders) else ["nobody is shown as stranded"]
    asking += [asyncio.create_task(ask(other, key)) for _ in range(ROOM)]
    wanted = ROOM - held
    await traffic.until(lambda: sum(task.done() for task in asking) >= ROOM - wanted, "refusals")
    found.site.running.process.send_signal(signal.SIGCONT)
    asking += [asyncio.create_task(ask(first, key)) for _ in range(ROOM + held)]
    await traffic.until(lambda: sum(task.done() for task in asking) >= len(asking) - ROOM, "the others")
    admitted = found.site.script.count
    faults += [] if admitted == ROOM else [f"{admitted} were admitted on room for {ROOM}"]
    gate.open()
    await asyncio.gather(*asking)
    return faults, admitted


def outage(setting: Setting) -> Iterator[Row]:
    """Q9: without the database strict budgets refuse with 503, others go on, and it all adds up later."""
    with services.cluster() as cluster, town(setting, cluster.url) as found:
        found.key("strict", limit=ROOM)
        found.key("standard", limit=10**6, enforcement=Enforcement.STANDARD)
        found.open()
        found.site.script.play(Plan(streams=False))
        statuses: dict[str, list[int | None]] = {}
        for name in ("strict", "standard"):
            # So that keys are known.
            statuses[name] = [asyncio.run(ask(found.urls[0], found.keys[name])).status]
        cluster.stop()
        for name in ("strict", "standard"):
            gots = asyncio.run(_many(found, name, 20))
            statuses[name] += [got.status for got in gots]
        cluster.start()
        found.site.reopen()
        faults = [] if set(statuses["standard"]) == {200} else [f"standard: {statuses['standard']}"]
        if not set(statuses["strict"]) <= {200, 503} or 503 not in statuses["strict"]:
            faults.append(f"strict: {statuses['strict']}")
        admitted = statuses["strict"].count(200)
        faults += found.exact("standard", statuses["standard"].count(200), Measure.REQUESTS)
        faults += found.exact("strict", admitted, Measure.REQUESTS)
        got = asyncio.run(ask(found.urls[0], found.keys["strict"]))
        faults += [] if got.status == 200 else [f"afterwards a strict request got {got.status}"]
        yield Row(
            setting=setting,
            experiment="Q9: outage",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=21,
            admitted=admitted,
            limit=ROOM,
            overshoot=max(0, found.stands("strict")[0] - ROOM),
            falsely_refused=(statuses["strict"] + statuses["standard"]).count(429),
            faults=tuple(faults),
        )


async def _many(found: Town, name: str, count: int) -> list[Got]:
    return list(await asyncio.gather(*(ask(found.urls[0], found.keys[name]) for _ in range(count))))


Experiment = Callable[[], Iterator[Row]]
