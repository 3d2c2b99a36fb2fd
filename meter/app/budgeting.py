"""Budgets as a step of admission, and their bank: the store, asked by one thread, one question at a time."""

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from meter.allowances.applying import Applying, Need
from meter.allowances.reservations import Part, Reservation
from meter.allowances.sizes import PAIRS_REMEMBERED_MAX, Sizes
from meter.allowances.treasury import Bank, Treasury
from meter.app import actions
from meter.app.clocks import ServerClock
from meter.core.allowances import Answer, Ask, Beat, Share, Wish
from meter.core.attempts import Attempt
from meter.core.bounds import Bound, Ceiling, Ceilings, bound, likely
from meter.core.budgets import Amounts, Budget, Enforcement, Measure
from meter.core.clock import Clock
from meter.core.errors import MeteringUnavailable, ModelNotPriced
from meter.core.events import UsageEvent
from meter.core.prices import Price, PriceBook
from meter.core.request import RequestFacts
from meter.datadir import BUDGETS_FILE, save
from meter.proxy.admission import Candidate, Hold
from meter.settings import Settings
from meter.store import allowances
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable, RowRefused
from meter.store.sums import usual_completions

BEAT_SECONDS = 2.0
RETURN_SECONDS = 0.5
EMBEDDINGS = "embeddings"
CUT = "cut"
# What strict budgets expect is bounded, and needs no guess.
ONE_REQUEST = Amounts(0, 0, 1)
# How far back answers say how long others will be.
SIZES_DAYS = 7
# A stream that has used so much of what was reserved for it needs more.
GROW_FROM = 0.9

log = logging.getLogger(__name__)

T = TypeVar("T")


class Teller:
    """Asks the store for one holder. Answers carry the turn in which they were given: later news counts."""

    def __init__(self, database: Database, holder: str, now: Callable[[], datetime]) -> None:
        self._database = database
        self._holder = holder
        self._now = now
        self._lock = threading.Lock()
        self._turn = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="budgets")
        self.bank = Bank(self._reserve, self._give_back, self._beat)

    def append(
        self, events: Sequence[UsageEvent], posted_at: datetime, tell: Callable[[dict[int, Share], int], None]
    ) -> None:
        """Append events to the ledger, and tell what is held afterwards, and the turn."""
        with self._lock:
            shares = allowances.settle(self._database, self._holder, events, posted_at)
            self._turn += 1
            # Within the turn, so that nobody learns of a later one before.
            tell(shares, self._turn)

    def release(self, holder: str) -> None:
        """Free what a holder held whose journal has been shipped."""
        allowances.release(self._database, holder)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def _reserve(self, wishes: Sequence[Wish], asks: Sequence[Ask]) -> tuple[Answer, int]:
        return await self._ask(
            lambda: allowances.reserve(self._database, self._holder, wishes, asks, self._now())
        )

    async def _give_back(self, amounts: Mapping[int, int]) -> tuple[dict[int, Share], int]:
        return await self._ask(
            lambda: allowances.give_back(self._database, self._holder, amounts, self._now())
        )

    async def _beat(self, holds: bool) -> tuple[Beat, int]:  # noqa: FBT001 (a bank's signature)
        return await self._ask(
            lambda: allowances.beat(self._database, self._holder, self._now(), holds=holds)
        )

    async def _ask(self, question: Callable[[], T]) -> tuple[T, int]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._in_turn, question)
        except DatabaseUnavailable as fault:
            raise MeteringUnavailable(f"The budgets cannot be checked: {fault}") from fault

    def _in_turn(self, question: Callable[[], T]) -> tuple[T, int]:
        with self._lock:
            answer = question()
            self._turn += 1
            return answer, self._turn


class Budgeting:
    """The step of admission that budgets are."""

    def __init__(
        self, treasury: Treasury, sizes: Sizes, book: Callable[[], PriceBook], *, overrun: str
    ) -> None:
        self.treasury = treasury
        self.sizes = sizes
        self._book = book
        self._ceilings = Ceilings()
        self._cuts = overrun == CUT
        self._growing: set[asyncio.Task[None]] = set()

    def __call__(self, candidate: Candidate) -> Hold | Coroutine[Any, Any, Hold] | None:
        """Reserve what the request may use of all budgets that it falls under; see `Treasury.reserve`."""
        attempt, facts = candidate.attempt, candidate.facts
        if not self.treasury.knows:
            raise MeteringUnavailable("Which budgets there are is not known yet; try again soon.")
        owner_id = candidate.grant.owner_id
        under = self.treasury.applying(attempt.team_id, owner_id, attempt.model, attempt.started_at)
        if not under.purses:
            return None
        prices = self._book().tiers(attempt.upstream, attempt.model, attempt.started_at)
        if not prices and (counted := under.counts_costs):
            raise ModelNotPriced(attempt.model, f"the budget of {counted.whose} counts what it costs")
        most = _bound(under, attempt, facts, self._ceilings.of(prices)) if under.bounds else None
        some = self.likely(attempt, facts, prices) if under.guesses else ONE_REQUEST
        expected = Expected(some, attempt.prompt_estimate, prices, facts.service_tier)
        reservation = self.treasury.reserve(_parts(under.needs, most, some))
        if isinstance(reservation, Reservation):
            return _Budgeted(self, reservation, most, expected)
        return self._when_reserved(reservation, most, expected)

    async def _when_reserved(
        self, reserving: Awaitable[Reservation], most: Bound | None, expected: "Expected"
    ) -> Hold:
        return _Budgeted(self, await reserving, most, expected)

    def likely(self, attempt: Attempt, facts: RequestFacts, prices: Sequence[Price]) -> Amounts:
        """Return what a request will likely use."""
        completion = 0
        if attempt.route != EMBEDDINGS:
            completion = self.sizes.likely(attempt.key_id, attempt.model)
        return likely(
            facts.document,
            prompt_tokens=attempt.prompt_estimate,
            completion_tokens=completion,
            price=_in_tier(prices, facts.service_tier),
        )

    def grow(self, reservation: Reservation, part: Part, amount: int, cut: Callable[[], None]) -> None:
        """Reserve more for a stream under way; where there is no room, it is cut or goes on as configured."""
        task = asyncio.create_task(self._grow(reservation, part, amount, cut))
        self._growing.add(task)
        task.add_done_callback(self._growing.discard)

    async def _grow(self, reservation: Reservation, part: Part, amount: int, cut: Callable[[], None]) -> None:
        try:
            full = await self.treasury.grow(reservation, part, amount)
        except MeteringUnavailable as fault:
            log.warning("a stream goes on past its reservation: %s", fault)
            return
        if full is not None and self._cuts:
            cut()


class Expected(msgspec.Struct, frozen=True, gc=False):
    """What a request will likely use."""

    all: Amounts
    prompt_tokens: int
    prices: Sequence[Price]
    service_tier: str | None

    @property
    def prompt(self) -> Amounts:
        """The prompt's part of that."""
        price = _in_tier(self.prices, self.service_tier)
        return likely({}, prompt_tokens=self.prompt_tokens, completion_tokens=0, price=price)


class _Budgeted(Hold):
    """What a request has reserved."""

    __slots__ = ("_booked", "_bound", "_expected", "_owner", "_reservation")

    def __init__(
        self, owner: Budgeting, reservation: Reservation, most: Bound | None, expected: Expected
    ) -> None:
        self._owner = owner
        self._reservation = reservation
        self._bound = most
        self._expected = expected
        self._booked = False

    def noted(self, attempt: Attempt) -> Attempt:
        reserved = self._reservation.reserved
        return msgspec.structs.replace(attempt, bound=self._bound, reserved=reserved)

    def progressed(self, emitted_tokens: int, cut: Callable[[], None]) -> None:
        for part in self._reservation.parts:
            budget = part.purse.budget
            if budget.enforcement is not Enforcement.STANDARD or budget.measure is Measure.REQUESTS:
                continue
            if not part.growing and emitted_tokens > GROW_FROM * self._covers(part):
                more = part.amount - self._expected.prompt.of(budget.measure)
                self._owner.grow(self._reservation, part, max(1, more), cut)

    def booked(self, event: UsageEvent) -> UsageEvent:
        self._booked = True
        self._owner.sizes.learn([event])
        return self._owner.treasury.settle(event, self._reservation)

    def release(self) -> None:
        if not self._booked:
            self._owner.treasury.cancel(self._reservation)

    def _covers(self, part: Part) -> float:
        """Return for how many tokens of an answer the reservation is enough, beside the prompt."""
        measure = part.purse.budget.measure
        prompt = self._expected.prompt.of(measure)
        usual = self._expected.all.of(measure) - prompt
        tokens = self._expected.all.tokens - self._expected.prompt.tokens
        # What costs nothing is enough for any number.
        return tokens * (part.amount - prompt) / usual if usual else math.inf


def _bound(under: Applying, attempt: Attempt, facts: RequestFacts, ceiling: Ceiling) -> Bound:
    """Bound a request that falls under strict budgets."""
    embeds = attempt.route == EMBEDDINGS
    most = bound(facts.document, body_bytes=facts.body_bytes, embeds=embeds, ceiling=ceiling)
    if not under.bounds_costs:
        return msgspec.structs.replace(most, cost=None)
    if most.cost is None:
        raise ModelNotPriced(attempt.model, "a strict budget counts its cost")
    return most


def _parts(needs: Sequence[Need], most: Bound | None, some: Amounts) -> tuple[Part, ...]:
    """Say what a request needs of each window."""
    strict: tuple[int, ...] = some
    if most is not None:
        strict = (most.cost or 0, most.prompt_tokens + most.completion_tokens, 1)
    # By way of a list, which takes half the time of a generator.
    return tuple([Part(purse, (strict if is_strict else some)[at]) for purse, is_strict, at in needs])


def _in_tier(prices: Sequence[Price], service_tier: str | None) -> Price | None:
    if service_tier is not None:
        for price in prices:
            if price.service_tier == service_tier:
                return price
    return prices[0] if prices else None


class Office:
    """All of a process's budgets: teller, treasury, the step of admission, and the clock they go by."""

    def __init__(
        self, database: Database, settings: Settings, holder: str, book: Callable[[], PriceBook]
    ) -> None:
        self._told = ServerClock(actions.clock)
        self.clock = Clock(now=self._told.now, monotonic=actions.clock.monotonic)
        self.teller = Teller(database, holder, actions.clock.now)
        self.treasury = Treasury(self.teller.bank, self.clock)
        self.step = Budgeting(self.treasury, Sizes(), book, overrun=settings.overrun)
        self._database = database
        self._path = settings.data_dir / BUDGETS_FILE
        self._saved: list[Budget] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Learn what budgets there are: from the database, or from what was last seen."""
        budgets = self._last_seen()
        if budgets is not None:
            self.treasury.start_from(budgets)
        await self._beat()

    async def keep(self) -> None:
        """Learn how long answers are, then beat and give back, again and again, until cancelled."""
        await self._learn_sizes()
        while True:
            for _ in range(round(BEAT_SECONDS / RETURN_SECONDS)):
                await asyncio.sleep(RETURN_SECONDS)
                await self._return_idle()
            await self._beat()

    def append(self, events: Sequence[UsageEvent]) -> int:
        """Append events to the ledger, from any thread, and tell the treasury what it holds then."""
        event_ids = [event.event_id for event in events]

        def tell(shares: dict[int, Share], turn: int) -> None:
            self._loop.call_soon_threadsafe(self.treasury.shipped, event_ids, shares, turn)

        try:
            self.teller.append(events, self.clock.now(), tell)
        except RowRefused:
            if len(events) == 1:
                # It goes to quarantine, so that the ledger will never take it out of what is held.
                self._loop.call_soon_threadsafe(self.treasury.forget, event_ids)
            raise
        return len(events)

    async def _learn_sizes(self) -> None:
        since = self.clock.now() - timedelta(days=SIZES_DAYS)
        try:
            known = await asyncio.to_thread(usual_completions, self._database, since, PAIRS_REMEMBERED_MAX)
        except DatabaseUnavailable as fault:
            log.info("how long answers were cannot be looked up, and is learned anew: %s", fault)
            return
        self.step.sizes.start_from(known)

    async def _return_idle(self) -> None:
        try:
            await self.treasury.return_idle()
        except MeteringUnavailable as fault:
            log.info("what is idle of the budgets cannot be given back now: %s", fault)
        except Exception:
            log.exception("what is idle of the budgets could not be given back")

    async def _beat(self) -> None:
        try:
            self._told.tell(await self.treasury.beat())
            self._save()
        except MeteringUnavailable as fault:
            log.info("budgets cannot be looked up now: %s", fault)
        except Exception:
            log.exception("budgets could not be looked up")

    def _last_seen(self) -> list[Budget] | None:
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=list[Budget])
        except FileNotFoundError:
            return None
        except ValueError as fault:
            log.warning("the budgets in %s cannot be read: %s", self._path, fault)
            return None

    def _save(self) -> None:
        if self.treasury.budgets != self._saved:
            save(self._path, msgspec.msgpack.encode(self.treasury.budgets))
            self._saved = self.treasury.budgets
