"""A small world of budgets: processes with the real treasury on a real database, whose answers come late.

Beside it stands the model, which keeps two lists: what every request has reserved, and what it was charged.
After each step the database is held against them. Nothing waits: whoever drives the world says when the
database answers, and how: well, not at all, or after its commit, with an answer that nobody hears.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import sqlalchemy as sa

from meter.allowances.reservations import Part, Reservation
from meter.allowances.treasury import Bank, Treasury
from meter.core.allowances import Ask, Wish
from meter.core.audit import Signature
from meter.core.budgets import Amounts, Budget, Enforcement, Measure, OwnerKind, Span, charged
from meter.core.clock import Clock
from meter.core.errors import InsufficientQuota, MeteringUnavailable
from meter.core.events import Outcome, Reserved, UsageEvent, UsageSource, uuid7
from meter.core.prices import OVERSHOOT
from meter.store import allowances, budgets, ledger
from meter.store.database import Database
from meter.store.tables import allowances as allowances_table
from meter.store.tables import budget_windows, usage_events
from tests.faults.seeds import SteppedLoop

START = datetime(2026, 11, 23, 12, 34, tzinfo=UTC)
TEAM = "team"
KEYS = ("k1", "k2")
MODEL = "model"
COST_OF_TOKEN = 1000
TURNS_OF_THE_LOOP = 15
WELL, LOST, REFUSED = "well", "lost", "refused"

Window = tuple[str, datetime]


def amounts_of(tokens: int) -> Amounts:
    """Return what a request of so many tokens is in every measure."""
    return Amounts(tokens * COST_OF_TOKEN, tokens, 1)


def budget(name: str, **fields: object) -> Budget:
    """Make a budget of the organisation's for requests by the hour."""
    values: dict[str, object] = {
        "id": name,
        "owner_kind": OwnerKind.ORG,
        "measure": Measure.TOKENS,
        "period": "hour",
        "limit": 100,
        "enforcement": Enforcement.STRICT,
    }
    return Budget(**values | fields)  # type: ignore[arg-type]


BUDGETS = (
    budget("org", measure=Measure.COST, limit=100 * COST_OF_TOKEN, period="hour"),
    budget(
        "team", owner_kind=OwnerKind.TEAM, owner_id=TEAM, measure=Measure.REQUESTS, limit=12, period="day"
    ),
    budget("k1", owner_kind=OwnerKind.KEY, owner_id="k1", limit=60, period="total"),
    budget("plenty", owner_kind=OwnerKind.KEY, owner_id="k2", limit=10_000, period="hour", model="mod*"),
)


@dataclass
class Request:
    """One request, from its asking to its end."""

    event_id: str
    key_id: str
    tokens: int
    at: datetime
    task: "asyncio.Task[Reservation]"
    reservation: Reservation | None = None
    noted: tuple[Reserved, ...] = ()
    """What its intent says."""


@dataclass
class Operation:
    """A question to the database that has not been answered."""

    question: Callable[[], Any]
    answer: "asyncio.Future[tuple[Any, int]]"
    asks: Sequence[tuple[Sequence[Wish], Ask]] = ()
    tells_all: bool = False
    unsure: bool = False
    """Whether the process did not know what it holds when it asked."""
    granted: Sequence[Mapping[Window, int]] = ()
    own: Sequence[tuple[str, str, datetime, int]] = ()
    """What the process had reserved or spent when it asked: event, key, time, tokens."""


@dataclass
class Process:
    """One process: its treasury, its requests, and its journal."""

    world: "World"
    holder: str
    treasury: Treasury = field(init=False)
    requests: list[Request] = field(default_factory=list)
    """Under way, admitted or not."""
    journal: list[UsageEvent] = field(default_factory=list)
    """Settled, and not known to be shipped."""
    operations: deque[Operation] = field(default_factory=deque)
    granted: list[Mapping[Window, int]] = field(default_factory=list)
    """What was reserved by an answer whose requests have not gone on since."""
    turn: int = 0
    unheard: bool = False
    """It does not know what it holds until it beats."""
    undelivered: int = 0
    """So many events of its journal are in the ledger, and it does not know."""

    def __post_init__(self) -> None:
        bank = Bank(self._reserve, self._give_back, self._beat)
        clock = Clock(now=lambda: self.world.now, monotonic=lambda: self.world.seconds)
        self.treasury = Treasury(bank, clock)

    @property
    def admitted(self) -> list[Request]:
        """Requests that have their reservation and have not ended."""
        return [each for each in self.requests if each.reservation is not None]

    @property
    def unsure(self) -> bool:
        """Whether the database has done something that this process has not heard of."""
        return self.unheard or bool(self.undelivered)

    def ask(self, key_id: str, tokens: int) -> Request:
        """Ask for a request's admission."""
        world = self.world
        purses = self.treasury.purses(TEAM, key_id, MODEL, world.now)
        parts = tuple(Part(purse, amounts_of(tokens).of(purse.budget.measure)) for purse in purses)
        task = world.loop.create_task(self.treasury.admit(parts))
        request = Request(world.new_id(), key_id, tokens, world.now, task)
        world.asked[request.event_id] = tokens
        self.requests.append(request)
        return request

    def settle(self, request: Request, tokens: int) -> UsageEvent:
        """End a request that has used so many tokens."""
        assert request.reservation is not None
        event = self.treasury.settle(self.world.event(request, tokens), request.reservation)
        self.requests.remove(request)
        self.journal.append(event)
        return event

    def leave(self, request: Request) -> None:
        """Take the client away while its request waits, or have it not begin after all."""
        self.world.injected["cancels"] += 1
        request.task.cancel()
        if request.reservation is not None:
            self.treasury.cancel(request.reservation)
            self.requests.remove(request)

    def ship(self, count: int, fate: str) -> None:
        """Deliver the oldest events of the journal, all in one turn."""
        events = self.journal[:count]
        self.world.injected["unheard"] += fate != WELL
        if fate != REFUSED:
            ledger.append(self.world.database, events, self.world.now)
            self.turn += 1
        if fate == WELL:
            self.undelivered = max(0, self.undelivered - count)
            self.journal = self.journal[count:]
            ids = [event.event_id for event in events]
            self.treasury.shipped(ids, allowances.held(self.world.database, self.holder), self.turn)
        if fate == LOST:
            self.undelivered = max(self.undelivered, len(events))

    def answer(self, fate: str) -> None:
        """Have the database answer the oldest question."""
        operation = self.operations.popleft()
        self.unheard = self.unheard or fate != WELL
        self.world.injected["unheard"] += fate != WELL
        if fate == REFUSED:
            operation.answer.set_exception(MeteringUnavailable("away"))
            return
        rooms = self.world.rooms_for(self, operation)
        found = operation.question()
        self.turn += 1
        if fate == LOST:
            operation.answer.set_exception(MeteringUnavailable("away"))
            return
        if rooms is not None:
            self.world.judge(operation, rooms, found.full)
        if operation.tells_all:
            self.unheard = False
        if operation.asks:
            self.granted += [
                {(wishes[at].budget_id, wishes[at].span.start): need for at, need in ask.needs.items()}
                for (wishes, ask), full in zip(operation.asks, found.full, strict=True)
                if full is None
            ]
        operation.answer.set_result((found, self.turn))

    def _own(self) -> list[tuple[str, str, datetime, int]]:
        open_now = [(each.event_id, each.key_id, each.at, each.tokens) for each in self.admitted]
        # What was cut off at what was reserved is more in the ledger, but no more is held for it.
        kept = [(each.event_id, each.key_id, each.started_at, each.total_tokens) for each in self.journal]
        return [*open_now, *kept]

    async def _reserve(self, wishes: Sequence[Wish], asks: Sequence[Ask]) -> tuple[Any, int]:
        world = self.world
        operation = self._operation(
            lambda: allowances.reserve(world.database, self.holder, wishes, asks, world.now)
        )
        operation.asks = [(wishes, ask) for ask in asks]
        operation.own = self._own()
        operation.unsure = self.unsure
        operation.granted = list(self.granted)
        return await operation.answer

    async def _give_back(self, amounts: Mapping[int, int]) -> tuple[Any, int]:
        world = self.world
        given = dict(amounts)
        return await self._operation(
            lambda: allowances.give_back(world.database, self.holder, given, world.now)
        ).answer

    async def _beat(self, holds: bool) -> tuple[Any, int]:
        world = self.world
        operation = self._operation(
            lambda: allowances.beat(world.database, self.holder, world.now, holds=holds)
        )
        operation.tells_all = True
        return await operation.answer

    def _operation(self, question: Callable[[], Any]) -> Operation:
        operation = Operation(question, self.world.loop.create_future())
        self.operations.append(operation)
        return operation


class World:
    """The processes, the database that they share, and the model."""

    def __init__(self, database: Database, known: Sequence[Budget], random: Random) -> None:
        self.database = database
        self.random = random
        self.now = START
        self.seconds = 0.0
        self.loop = SteppedLoop()
        self.budgets = {each.id: each for each in known}
        self.limits = {each.id: each.limit for each in known}
        """The highest that there was."""
        self.asked: dict[str, int] = {}
        """Tokens that requests have asked for, by their events."""
        self.dead: list[Process] = []
        self.refused = self.admitted = 0
        self.faults: list[str] = []
        self.injected: Counter[str] = Counter()
        """What went wrong by intent, and how often."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._names = 0
        for each in known:
            budgets.put(database, each, Signature("test", self.now))
        self.processes = [self._process(), self._process()]

    def new_id(self) -> str:
        """Mint an event's id."""
        return uuid7(int(self.now.timestamp() * 1000), self.random.randbytes(10))

    def event(self, request: Request, tokens: int, **fields: object) -> UsageEvent:
        """Make the event of a request that has used so many tokens."""
        values: dict[str, object] = {
            "event_id": request.event_id,
            "started_at": request.at,
            "team_id": TEAM,
            "key_id": request.key_id,
            "route": "chat.completions",
            "upstream": "upstream",
            "model_requested": MODEL,
            "stream": False,
            "outcome": Outcome.OK,
            "usage_source": UsageSource.REPORTED,
            "prompt_tokens": tokens,
            "cost": tokens * COST_OF_TOKEN,
        }
        return UsageEvent(**values | fields)  # type: ignore[arg-type]

    def run(self) -> None:
        """Let everybody do what they can do without an answer."""

        async def turns() -> None:
            for _ in range(TURNS_OF_THE_LOOP):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for process in self.processes:
            for request in list(process.requests):
                self._look_at(process, request)
            process.granted.clear()

    def start(self, work: Awaitable[Any]) -> None:
        """Begin something that asks the database."""
        task = asyncio.ensure_future(work, loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def answer_all(self) -> None:
        """Have every question answered well, and those that follow from it."""
        self.run()
        while any(process.operations for process in self.processes):
            for process in self.processes:
                while process.operations:
                    process.answer(WELL)
            self.run()

    def pass_time(self, seconds: float) -> None:
        """Let time pass on every clock."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds
        self.loop.advance(seconds)

    def crash(self, process: Process) -> None:
        """End a process where it is; another takes its place."""
        self.injected["crashes"] += 1
        if process.operations and self.random.random() < 0.5:
            # What it has asked last may still be done.
            process.answer(LOST)
        for task in [request.task for request in process.requests]:
            task.cancel()
        self.run()
        self.dead.append(process)
        self.processes[self.processes.index(process)] = self._process()

    def adopt(self, process: Process) -> None:
        """Finish the journal of a dead process, as whoever finds it does."""
        self.dead.remove(process)
        interrupted = [
            self.event(
                request,
                request.tokens,
                outcome=Outcome.INTERRUPTED,
                usage_source=UsageSource.ESTIMATED,
                reserved=request.noted,
            )
            for request in process.admitted
        ]
        ledger.append(self.database, [*process.journal, *interrupted], self.now)
        allowances.release(self.database, process.holder)

    def change_limit(self, name: str, limit: int) -> None:
        """Edit a budget; processes hear of it when they beat."""
        self.budgets[name] = msgspec.structs.replace(self.budgets[name], limit=limit)
        self.limits[name] = max(self.limits[name], limit)
        budgets.put(self.database, self.budgets[name], Signature("test", self.now))

    def finish(self) -> None:
        """Let everything end well: requests, journals, what is held."""
        self.answer_all()
        for process in self.processes:
            for request in process.admitted:
                process.settle(request, request.tokens)
            process.ship(len(process.journal), WELL)
            self.start(process.treasury.beat())
        self.answer_all()
        for process in list(self.dead):
            self.adopt(process)
        # Nothing is wanted any more after some seconds, and what was held goes back.
        for _ in range(2):
            self.pass_time(5)
            for process in self.processes:
                self.start(process.treasury.beat())
            self.answer_all()
            for process in self.processes:
                self.start(process.treasury.return_idle())
            self.answer_all()

    def close(self) -> None:
        """Leave nothing running."""
        for process in [*self.processes, *self.dead]:
            for operation in process.operations:
                operation.answer.cancel()
            for request in process.requests:
                request.task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        pending = asyncio.all_tasks(self.loop)
        for task in pending:
            task.cancel()
        if pending:
            self.loop.run_until_complete(asyncio.wait(pending, timeout=1))
        self.loop.close()

    def rooms_for(self, process: Process, operation: Operation) -> list[int] | None:
        """Return the room that is left by the model; `None` where it cannot know what the process knows."""
        if operation.unsure or process.unsure or not operation.asks:
            return None
        return [self._room(process, operation, wish) for wish in operation.asks[0][0]]

    def judge(self, operation: Operation, rooms: list[int], full: Sequence[object]) -> None:
        """Note asks that were refused although there was room."""
        for refusal, (wishes, ask) in zip(full, operation.asks, strict=True):
            if refusal is None:
                for at, need in ask.needs.items():
                    rooms[at] -= need
            elif all(need <= rooms[at] for at, need in ask.needs.items()):
                held = [(wish.budget_id, wish.held) for wish in wishes]
                self.faults.append(f"falsely refused: {dict(ask.needs)} by {refusal}, held {held}")

    def look(self) -> list[str]:
        """Hold the database against the model; returns what is wrong."""
        found, self.faults = self.faults, []
        entries = self._ledger()
        with self.database.read() as connection:
            total = sa.func.sum(allowances_table.c.amount).label("amount")
            query = sa.select(allowances_table.c.window_id, total).group_by(allowances_table.c.window_id)
            held = {row.window_id: int(row.amount) for row in connection.execute(query)}
            rows = connection.execute(sa.select(budget_windows)).all()
        for row in rows:
            name, span = row.budget_id, Span(row.start, row.end)
            measure = self.budgets[name].measure
            inside = [event for event in entries.values() if self._falls(name, span, event)]
            spent = sum(charged(event).of(measure) for event in inside)
            if row.spent != spent:
                found.append(f"{name} {row.start:%H}: spent {row.spent} and not {spent}")
            if row.reserved != held.get(row.id, 0):
                found.append(f"{name} {row.start:%H}: reserved {row.reserved}, held {held.get(row.id, 0)}")
            if self.budgets[name].enforcement is Enforcement.STRICT:
                found += self._passed(name, span, row.spent + row.reserved, entries)
        return found

    def reserved(self) -> int:
        """Return what is reserved of all windows."""
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.sum(budget_windows.c.reserved))) or 0)

    def _passed(self, name: str, span: Span, in_sql: int, entries: Mapping[str, UsageEvent]) -> list[str]:
        """Compare with the limit what SQL says, and what all requests have used or may still use."""
        measure = self.budgets[name].measure
        events = dict(entries)
        promised = 0
        for process in [*self.processes, *self.dead]:
            events |= {event.event_id: event for event in process.journal}
            promised += sum(
                amounts_of(request.tokens).of(measure)
                for request in process.admitted
                if self._falls_in(name, span, request.key_id, request.at)
            )
        inside = [event for event in events.values() if self._falls(name, span, event)]
        used = sum(charged(event).of(measure) for event in inside)
        more = sum(self._over(event).of(measure) for event in inside)
        unflagged = [
            event for event in inside if self._over(event).tokens and OVERSHOOT not in event.anomalies
        ]
        found = [f"{name}: {event.event_id} passed its reservation unflagged" for event in unflagged]
        limit = self.limits[name]
        if used + promised > limit + more:
            found.append(f"{name}: used {used} and promised {promised} of {limit}, overshoot {more}")
        if in_sql > limit + more:
            found.append(f"{name}: spent and reserved are {in_sql} of {limit}, overshoot {more}")
        return found

    def _room(self, process: Process, operation: Operation, wish: Wish) -> int:
        """Return what is left of a window for one process: all but what is spent, and what others hold."""
        name, span = wish.budget_id, wish.span
        measure = self.budgets[name].measure
        entries = self._ledger()
        spent = sum(
            charged(event).of(measure) for event in entries.values() if self._falls(name, span, event)
        )
        own = 0
        for event_id, key_id, at, tokens in operation.own:
            if self._falls_in(name, span, key_id, at):
                # What was shipped since it asked had reserved more, perhaps, than it has spent.
                gone = charged(entries[event_id]).of(measure) if event_id in entries else 0
                own += max(0, amounts_of(tokens).of(measure) - gone)
        own += sum(each.get((name, span.start), 0) for each in operation.granted)
        others = (
            sa.select(sa.func.sum(allowances_table.c.amount))
            .join(budget_windows)
            .where(budget_windows.c.budget_id == name, budget_windows.c.start == span.start)
            .where(allowances_table.c.holder != process.holder)
        )
        with self.database.read() as connection:
            held = int(connection.scalar(others) or 0)
        return self.budgets[name].limit - spent - own - held

    def _ledger(self) -> dict[str, UsageEvent]:
        with self.database.read() as connection:
            rows = connection.execute(sa.select(usage_events)).mappings()
            return {row["event_id"]: ledger.read_event(row) for row in rows}

    def _over(self, event: UsageEvent) -> Amounts:
        """Return by how much an event has passed what was reserved."""
        more = max(0, event.total_tokens - self.asked[event.event_id])
        return Amounts(more * COST_OF_TOKEN, more, 0)

    def _falls(self, name: str, span: Span, event: UsageEvent) -> bool:
        return self._falls_in(name, span, event.key_id, event.started_at)

    def _falls_in(self, name: str, span: Span, key_id: str, at: datetime) -> bool:
        found = self.budgets[name]
        return found.applies(TEAM, key_id, MODEL) and found.span(at) == span

    def _process(self) -> Process:
        self._names += 1
        process = Process(self, f"process-{self._names}")
        process.treasury.start_from(list(self.budgets.values()))
        return process

    def _look_at(self, process: Process, request: Request) -> None:
        if request.reservation is not None or not request.task.done():
            return
        fault = None if request.task.cancelled() else request.task.exception()
        if request.task.cancelled() or fault is not None:
            process.requests.remove(request)
            self.refused += isinstance(fault, InsufficientQuota)
            if fault is not None and not isinstance(fault, InsufficientQuota | MeteringUnavailable):
                raise fault
            return
        self.admitted += 1
        request.reservation = request.task.result()
        request.noted = request.reservation.reserved

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, MeteringUnavailable):
            self.faults.append(f"a question ended by {fault!r}")
