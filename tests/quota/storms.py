"""Budgets of real servers while something else goes on: four levels, leaving clients, the end of an hour."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

import sqlalchemy as sa

from meter.app.actions import clock
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind, spent_by_window
from meter.core.events import Outcome
from meter.store import budgets, ledger
from meter.store.tables import budget_windows
from tests import services
from tests.fake_upstream import Gate
from tests.faults import clocks, traffic
from tests.faults.script import CONTENT, Plan
from tests.faults.site import POSTGRESQL
from tests.faults.traffic import Got
from tests.quota.servers import (
    MAX_TOKENS,
    MODEL,
    QUIET_SECONDS_MAX,
    TIMES_MAX,
    UNDECIDED,
    Row,
    Setting,
    Town,
    ask,
    insist,
    open_towards,
    town,
)

ROOMY = 2**60
TIGHT = "tight-model"
ROOM_OF_TIGHT = 40
MANY = 300


class Asking(NamedTuple):
    """A request to be sent."""

    url: str
    key: str
    body: bytes


def body_of(model: str, *, stream: bool = False) -> bytes:
    """Ask a model for a short answer."""
    messages = [{"role": "user", "content": "How much?"}]
    document = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "stream": stream}
    return json.dumps(document).encode()


async def at_once(found: Town, asking: Sequence[Asking], gate: Gate | None = None) -> list[Got]:
    """Send them all; those at the upstream stay there until all have been decided."""
    before = found.site.script.count
    tasks = [asyncio.create_task(insist(*each)) for each in asking]

    def decided() -> bool:
        return found.site.script.count - before + sum(task.done() for task in tasks) >= len(tasks)

    if gate is not None:
        try:
            await traffic.until(decided, "every request to be decided", QUIET_SECONDS_MAX)
        finally:
            gate.open()
    return list(await asyncio.gather(*tasks))


def put(found: Town, name: str, kind: OwnerKind, owner_id: str = "", **fields: object) -> Budget:
    """Make a strict budget."""
    values: dict[str, object] = {
        "id": name,
        "owner_kind": kind,
        "owner_id": owner_id,
        "measure": Measure.TOKENS,
        "period": "total",
        "limit": ROOMY,
        "enforcement": Enforcement.STRICT,
    }
    made = Budget(**values | fields)  # type: ignore[arg-type]
    return budgets.put(found.site.database, made, Signature("quota", clock.now())).budget


def levels(setting: Setting) -> Iterator[Row]:
    """Q5: organisation, team, key and models, in random subsets, under load: nobody waits in a ring."""
    with town(setting) as found:
        keys = _family(found)
        for model in (MODEL, TIGHT):
            found.price(model)
        found.open()
        random = Random(5)
        deadlocks = _deadlocks(found)
        found.site.script.play(Plan(streams=False))
        calm = asyncio.run(at_once(found, _randomly(found, random, keys, [MODEL])))
        gate = Gate()
        found.site.script.play(Plan(before_head=gate, streams=False))
        asking = _randomly(found, random, keys, [MODEL, TIGHT])
        gots = asyncio.run(at_once(found, asking, gate))
        tight = [got for each, got in zip(asking, gots, strict=True) if TIGHT.encode() in each.body]
        other = [got for got in [*calm, *gots] if not any(got is each for each in tight)]
        admitted = sum(got.status == 200 for got in tight)
        falsely = sum(got.status == 429 for got in other)
        faults = [] if all(got.status == 200 for got in other) else [f"roomy: {_statuses(other)}"]
        faults += [] if admitted == ROOM_OF_TIGHT else [f"{admitted} admitted on room for {ROOM_OF_TIGHT}"]
        faults += [] if set(_statuses(tight)) == {200, 429} else [f"tight: {_statuses(tight)}"]
        faults += add_up(found, len(other) + admitted)
        more = _deadlocks(found) - deadlocks
        faults += [f"{more} deadlocks"] if more else []
        yield Row(
            setting=setting,
            experiment="Q5: four levels",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=len(tight),
            admitted=admitted,
            limit=ROOM_OF_TIGHT,
            overshoot=max(0, admitted - ROOM_OF_TIGHT),
            falsely_refused=falsely + max(0, ROOM_OF_TIGHT - admitted),
            faults=tuple(faults),
        )


def _family(found: Town) -> list[str]:
    """Make teams, their keys, and budgets on four levels; some keys have fewer above them than others."""
    put(found, "org", OwnerKind.ORG)
    put(found, "org-tight", OwnerKind.ORG, model="tight-*", measure=Measure.REQUESTS, limit=ROOM_OF_TIGHT)
    keys = []
    for number in range(3):
        with found.site.running.control as control:
            team_id = control.post("/api/v1/teams", json={"name": f"team-{number}"}).json()["id"]
        if number:
            put(found, f"team-{number}", OwnerKind.TEAM, team_id, measure=list(Measure)[number])
        for place in range(3):
            key = found.site.running.new_key(f"team-{number}")
            key_id = key.split("_")[1]
            keys.append(key)
            if place:
                put(found, f"key-{number}-{place}", OwnerKind.KEY, key_id, measure=list(Measure)[place])
            if place == 1:
                put(found, f"models-{number}", OwnerKind.KEY, key_id, model="strict-*", period="day")
    return keys


def _randomly(found: Town, random: Random, keys: Sequence[str], models: Sequence[str]) -> list[Asking]:
    return [
        Asking(random.choice(found.urls), random.choice(keys), body_of(random.choice(models)))
        for _ in range(MANY)
    ]


def _statuses(gots: Sequence[Got]) -> dict[int | None, int]:
    found: dict[int | None, int] = {}
    for got in gots:
        found[got.status] = found.get(got.status, 0) + 1
    return found


def _deadlocks(found: Town) -> int:
    if found.site.database_url is None:
        return 0
    with found.site.database.read() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.scalar(sa.text(query)) or 0)


def add_up(found: Town, count: int) -> list[str]:
    """Wait until so many events are in the ledger and nothing is reserved; hold every window against them."""
    database = found.site.database
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while time.monotonic() < deadline:
        events = [event for each in found.site.events().values() for event in each]
        with database.read() as connection:
            reserved = int(connection.scalar(sa.select(sa.func.sum(budget_windows.c.reserved))) or 0)
        if len(events) >= count and not reserved:
            break
        time.sleep(0.1)
    wrong = [] if len(events) == count else [f"{len(events)} events for {count} requests"]
    wrong += [f"{reserved} stay reserved"] if reserved else []
    with database.read() as connection:
        known = budgets.read(connection)
        rows = {
            (row.budget_id, row.start): int(row.spent)
            for row in connection.execute(sa.select(budget_windows))
        }
    expected = {(name, span.start): spent for (name, span), spent in spent_by_window(known, events).items()}
    wrong += [
        f"{name} from {start}: spent {rows.get((name, start), 0)}, the ledger has {spent}"
        for (name, start), spent in expected.items()
        if rows.get((name, start), 0) != spent
    ]
    return wrong + ledger.verify(database)


LEAVERS = ("leave-head", "leave-within", "stall-head", "stall-within")


def leavers(setting: Setting, count: int) -> Iterator[Row]:
    """Q4: clients that leave, and upstreams that stall, before the head and within the answer."""
    with town(setting, hangup_grace_seconds=0.2, idle_timeout_seconds=1, headers_timeout_seconds=1) as found:
        limit = 10 * count * len(body_of(MODEL)) * MAX_TOKENS
        found.key("leaving", measure=Measure.TOKENS, limit=limit)
        found.open()
        gate = Gate()
        found.site.script.play(
            lambda model: Plan(
                pieces=3,
                before_head=gate if "head" in model else None,
                before_usage=gate if "within" in model else None,
            )
        )
        statuses = asyncio.run(_leave(found, count))
        gate.open()
        faults = found.exact("leaving", count, Measure.TOKENS)
        events = found.events("leaving")
        faults += [
            f"{event.model_requested}, {event.outcome}: charged {event.total_tokens}"
            for event in events
            if event.outcome is not Outcome.UNREACHABLE and event.total_tokens < MAX_TOKENS
        ]
        got = asyncio.run(ask(found.urls[0], found.keys["leaving"], body_of(MODEL)))
        faults += [] if got.status == 200 else [f"afterwards a request got {got.status}"]
        yield Row(
            setting=setting,
            experiment="Q4: leave, stall",
            enforcement=Enforcement.STRICT,
            measure=Measure.TOKENS,
            offered=count,
            admitted=len(events),
            limit=limit,
            overshoot=max(0, found.stands("leaving")[0] - limit),
            falsely_refused=statuses.count(429) + (got.status == 429),
            faults=tuple(faults),
            left=count,
        )


async def _leave(found: Town, count: int) -> list[int | None]:
    key = found.keys["leaving"]
    slots = asyncio.Semaphore(40)

    async def one(number: int) -> int | None:
        kind = LEAVERS[number % len(LEAVERS)]
        url = found.urls[number // len(LEAVERS) % len(found.urls)]
        async with slots:
            if kind.startswith("stall"):
                return (await insist(url, key, body_of(kind, stream=True))).status
            status: int | None = UNDECIDED
            for again in range(TIMES_MAX):
                if status == UNDECIDED:
                    status = await _hang_up(found, url, key, f"{kind}-{number}-{again}")
            return status

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def _hang_up(found: Town, url: str, key: str, model: str) -> int | None:
    """Leave once the request is at the upstream, or once a piece of the answer has come."""
    reader, writer = await open_towards(url, key, body_of(model, stream=True))
    mark = CONTENT if "within" in model else b"\r\n"
    reading = asyncio.create_task(_read_until(reader, mark))
    try:
        await traffic.until(
            lambda: reading.done() or ("head" in model and model in found.site.script.truths()),
            "the request at the upstream, or its answer",
            QUIET_SECONDS_MAX,
        )
        raw = reading.result() if reading.done() else b""
        return int(raw.split(b" ", 2)[1]) if raw else None
    finally:
        reading.cancel()
        writer.close()


async def _read_until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    raw = b""
    while mark not in raw and (data := await reader.read(1 << 16)):
        raw += data
    return raw


# So long before the end of the hour the load begins, and it goes on until both hours are full.
BEFORE_SECONDS = 12
ROOM_OF_HOUR = 25
CLIENTS = 12


def switch(setting: Setting) -> Iterator[Row]:
    """Q7: an hour ends under load; each of both hours has exactly what it has room for."""
    with _at_the_hour(setting) as (found, times):
        hourly = found.key("hourly", limit=ROOM_OF_HOUR, period="hour")
        found.open()
        found.site.script.play(Plan(pieces=3, pause=0.2))
        edge = times.jump()
        counts, refused = asyncio.run(_across(found, hourly, edge, times))
        events = found.events("hourly")
        faults = add_up(found, len(events))
        hours = [edge - timedelta(hours=1), edge]
        spent = [counts.get(hour, 0) for hour in hours]
        faults += [] if spent[1] == ROOM_OF_HOUR else [f"the hours have {counts}"]
        faults += [] if refused[1] else ["nothing was refused in the second hour"]
        yield Row(
            setting=setting,
            experiment="Q7: hour ends",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=len(events) + sum(refused),
            admitted=len(events),
            limit=2 * ROOM_OF_HOUR,
            overshoot=sum(max(0, each - ROOM_OF_HOUR) for each in spent),
            falsely_refused=sum(
                max(0, ROOM_OF_HOUR - each) for each, full in zip(spent, refused, strict=True) if full
            ),
            faults=tuple(faults),
        )


async def _across(
    found: Town, hourly: Budget, edge: datetime, times: "_Times"
) -> tuple[dict[datetime, int], list[int]]:
    """Ask until the second hour is full; returns what each has spent, and how often each has refused."""
    over = asyncio.Event()
    asked = 0
    refused = [0, 0]

    async def client(number: int) -> None:
        nonlocal asked
        while not over.is_set():
            url = found.urls[number % len(found.urls)]
            got = await ask(url, found.keys["hourly"], body_of(MODEL, stream=True))
            asked += 1
            # A refusal that came before the end is of the first hour, whoever was asked.
            refused[times.now() >= edge] += got.status == 429
            await asyncio.sleep(0.05)

    def spent() -> dict[datetime, int]:
        return dict(_windows(found, hourly))

    def full() -> bool:
        return spent().get(edge, 0) >= ROOM_OF_HOUR

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    try:
        await traffic.until(full, "both hours to be full", BEFORE_SECONDS + 2 * QUIET_SECONDS_MAX)
        # Everybody once more, for what would be admitted beyond.
        before = asked
        await traffic.until(lambda: asked >= before + CLIENTS, "refusals")
    finally:
        over.set()
        await asyncio.gather(*clients)
    return spent(), refused


def _windows(found: Town, hourly: Budget) -> list[tuple[datetime, int]]:
    columns = budget_windows.c
    query = sa.select(columns.start, columns.spent).where(columns.budget_id == hourly.id, columns.spent > 0)
    with found.site.database.read() as connection:
        return [(row.start, int(row.spent)) for row in connection.execute(query)]


class _Times:
    """The time of the database, which is the one that counts, as far as it is shifted."""

    def __init__(self, clock_of: clocks.WallClock) -> None:
        self._clock = clock_of
        # Far from the ends of hours until everything runs.
        self._shift_to(minute=20)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + timedelta(seconds=self._clock.seconds)

    def jump(self) -> datetime:
        """Go to a moment before the end of the hour; returns its end."""
        now = self.now()
        edge = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        ahead = (edge - now).total_seconds() - BEFORE_SECONDS
        self._clock.shift(self._clock.seconds + round(ahead))
        return edge

    def _shift_to(self, minute: int) -> None:
        now = datetime.now(UTC)
        self._clock.shift(((minute - now.minute) % 60) * 60)


@contextmanager
def _at_the_hour(setting: Setting) -> Iterator[tuple[Town, _Times]]:
    """Open servers whose database has a clock that can be moved: SQLite's is that of the server."""
    with ExitStack() as stack:
        if setting.database == POSTGRESQL:
            cluster = stack.enter_context(services.cluster(start=False))
            moved = clocks.WallClock(cluster.folder)
            cluster.environment |= moved.environment
            times = _Times(moved)
            cluster.start()
            yield stack.enter_context(town(setting, cluster.url)), times
        else:
            with town(setting) as found:
                moved = clocks.WallClock(found.site.data_dir.parent)
                found.site.environment |= moved.environment
                yield found, _Times(moved)
