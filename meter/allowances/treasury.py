"""Admits requests by the budgets that they fall under: from memory where this process holds enough.

Where it does not, requests wait for one question to the database, which is asked for all that wait. What is
held grows before it runs out and goes back when it is idle. All of this runs on the event loop's thread; what
comes from others is stamped by the turn in which the database said it, so that older news never counts.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from meter.allowances.purse import Purse
from meter.core.allowances import Answer, Ask, Beat, Wish
from meter.core.budgets import Amounts, Budget, Enforcement, Measure, Standing, charged, format_amount
from meter.core.clock import Clock
from meter.core.errors import InsufficientQuota, MeteringUnavailable, Quota
from meter.core.events import Reserved, UsageEvent

# What a request waits for the database; then a strict budget refuses it, and another lets it pass.
WAIT_SECONDS_MAX = 2.0
# Whose budgets apply is remembered for so many pairs of a key and a model, most of them made up by clients.
REQUESTERS_REMEMBERED_MAX = 10_000

log = logging.getLogger(__name__)


class Bank(NamedTuple):
    """What the database does for allowances; each answer comes with the turn in which it was given."""

    reserve: Callable[[Sequence[Wish], Sequence[Ask]], Awaitable[tuple[Answer, int]]]
    give_back: Callable[[Mapping[int, int]], Awaitable[tuple[dict[int, int], int]]]
    beat: Callable[[bool], Awaitable[tuple[Beat, int]]]


class Part(msgspec.Struct):
    """What a request has reserved of one window."""

    purse: Purse
    amount: int
    growing: bool = False
    """Whether more is being reserved."""


class Reservation(msgspec.Struct):
    """What a request has reserved, of all windows that it falls into."""

    parts: tuple[Part, ...] = ()
    settled: bool = False

    @property
    def reserved(self) -> tuple[Reserved, ...]:
        """The same, for its event."""
        return tuple(
            Reserved(part.purse.allowance_id, part.amount)
            for part in self.parts
            if part.purse.allowance_id is not None
        )


class _Waiting(NamedTuple):
    parts: tuple[Part, ...]
    answer: asyncio.Future[Standing | None]


class _Applying(NamedTuple):
    purses: tuple[Purse, ...]
    since: datetime
    until: datetime | None

    def holds(self, at: datetime) -> bool:
        return self.since <= at and (self.until is None or at < self.until)


class Treasury:
    """All that this process holds of budgets."""

    def __init__(self, bank: Bank, clock: Clock) -> None:
        self._bank = bank
        self._clock = clock
        self._budgets: list[Budget] = []
        self._purses: dict[tuple[str, datetime], Purse] = {}
        self._applying: dict[tuple[str, str, str], _Applying] = {}
        self._waiting: list[_Waiting] = []
        self._asking: asyncio.Task[None] | None = None
        self._unshipped: dict[str, Reservation] = {}

    @property
    def budgets(self) -> list[Budget]:
        """All budgets, as they were last seen."""
        return self._budgets

    @property
    def awaits(self) -> bool:
        """Whether there are events that the ledger does not have yet, and that something is held for."""
        return bool(self._unshipped)

    def start_from(self, budgets: list[Budget]) -> None:
        """Take in the budgets of an earlier time."""
        self._take_budgets(budgets)

    def purses(self, team_id: str, key_id: str, model: str, at: datetime) -> tuple[Purse, ...]:
        """Return the windows that limit a request which starts at an instant."""
        requester = (team_id, key_id, model)
        applying = self._applying.get(requester)
        if applying is None or not applying.holds(at):
            if len(self._applying) >= REQUESTERS_REMEMBERED_MAX:
                self._applying.clear()
            applying = self._applying[requester] = self._apply(requester, at)
        return applying.purses

    async def admit(self, needs: Iterable[tuple[Purse, int]]) -> Reservation:
        """Reserve what a request needs of all its windows.

        Raises `InsufficientQuota` naming the one that has no room, and `MeteringUnavailable` where a strict
        budget cannot be asked.
        """
        at = self._clock.monotonic()
        parts = tuple(Part(purse, amount) for purse, amount in needs)
        enough = all(part.amount <= part.purse.free for part in parts)
        for part in parts:
            part.purse.promise(part.amount, at)
        if enough:
            if any(part.purse.low(at) for part in parts):
                self._ask()
            return Reservation(parts)
        reservation = Reservation(parts)
        try:
            full = await self._wait(parts)
        except MeteringUnavailable as fault:
            if any(part.purse.budget.enforcement is Enforcement.STRICT for part in parts):
                self.cancel(reservation)
                raise
            # Nobody can say that there is no room, and this budget may err.
            log.warning("a request was admitted past its budgets: %s", fault)
            return reservation
        except BaseException:
            self.cancel(reservation)
            raise
        if full is not None:
            self.cancel(reservation)
            raise _refusal(full, parts)
        return reservation

    async def grow(self, reservation: Reservation, part: Part, amount: int) -> Standing | None:
        """Reserve more for a request under way; returns the window where there is no room for it."""
        part.growing = True
        enough = amount <= part.purse.free
        part.purse.promise(amount, self._clock.monotonic())
        kept = False
        try:
            full = None if enough else await self._wait((Part(part.purse, amount),))
            kept = full is None and not reservation.settled
        finally:
            if kept:
                part.amount += amount
                part.growing = False
            else:
                part.purse.release(amount)
        return full

    def cancel(self, reservation: Reservation) -> None:
        """Take back what was reserved for a request that did not begin."""
        for part in reservation.parts:
            part.purse.release(part.amount)

    def settle(self, event: UsageEvent, reservation: Reservation) -> UsageEvent:
        """Keep what an event has used of its reservation, until the ledger has it; put that on it."""
        reservation.settled = True
        amounts = charged(event)
        kept = tuple(Part(part.purse, _moved(part, amounts)) for part in reservation.parts)
        for part, keeping in zip(reservation.parts, kept, strict=True):
            part.purse.release(part.amount - keeping.amount)
        self._unshipped[event.event_id] = Reservation(kept)
        return msgspec.structs.replace(event, reserved=reservation.reserved)

    def shipped(self, event_ids: Iterable[str], shares: Mapping[int, int], turn: int) -> None:
        """Take note that events are in the ledger, which has taken them out of what is held."""
        for event_id in event_ids:
            self.cancel(self._unshipped.pop(event_id, Reservation()))
        self._learn(shares, turn)

    async def beat(self) -> datetime:
        """Say that this process lives, and take in what has changed; returns the time that counts."""
        beat, turn = await self._bank.beat(any(purse.allowance_id for purse in self._purses.values()))
        self._learn(beat.shares, turn, complete=True)
        if beat.budgets != self._budgets:
            self._take_budgets(beat.budgets)
        self._forget_old(beat.now)
        return beat.now

    async def return_idle(self, *, everything: bool = False) -> None:
        """Give back what nobody has asked for lately."""
        at = self._clock.monotonic()
        going: dict[int, tuple[Purse, int]] = {}
        for purse in self._purses.values():
            amount = max(0, purse.free) if everything else purse.idle(at)
            if amount and purse.allowance_id is not None:
                purse.returning += amount
                going[purse.allowance_id] = (purse, amount)
        if not going:
            return
        try:
            amounts = {number: amount for number, (_, amount) in going.items()}
            shares, turn = await self._bank.give_back(amounts)
            self._learn(shares, turn)
        finally:
            for purse, amount in going.values():
                purse.returning -= amount

    async def aclose(self) -> None:
        """Wait for the question under way."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _apply(self, requester: tuple[str, str, str], at: datetime) -> _Applying:
        found = [
            self._purse(budget, at)
            for budget in self._budgets
            if budget.enforcement is not Enforcement.WARN and budget.applies(*requester)
        ]
        ends = [purse.span.end for purse in found if purse.span.end is not None]
        since = max((purse.span.start for purse in found), default=datetime.min.replace(tzinfo=at.tzinfo))
        return _Applying(tuple(found), since, min(ends, default=None))

    def _purse(self, budget: Budget, at: datetime) -> Purse:
        span = budget.span(at)
        return self._purses.setdefault((budget.id, span.start), Purse(budget, span))

    async def _wait(self, parts: tuple[Part, ...]) -> Standing | None:
        waiting = _Waiting(parts, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._ask()
        try:
            return await asyncio.wait_for(waiting.answer, WAIT_SECONDS_MAX)
        except TimeoutError:
            raise MeteringUnavailable("The budgets cannot be checked now; try again soon.") from None

    def _ask(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_bank())

    async def _ask_bank(self) -> None:
        """Ask for everybody who waits, until nobody does: there is one question at a time."""
        again = True
        while again:
            waiting, self._waiting = self._waiting, []
            with _told(waiting):
                await self._ask_for(waiting)
            again = bool(self._waiting)

    async def _ask_for(self, waiting: Sequence[_Waiting]) -> None:
        involved = {id(part.purse): part.purse for each in waiting for part in each.parts}
        at = self._clock.monotonic()
        involved |= {id(purse): purse for purse in self._purses.values() if purse.low(at)}
        purses = list(involved.values())
        place = {id(purse): number for number, purse in enumerate(purses)}
        asks = [Ask(_needs(each.parts, place)) for each in waiting]
        wishes = [
            _wish(purse, [ask.needs[number] for ask in asks if number in ask.needs])
            for number, purse in enumerate(purses)
        ]
        for purse in purses:
            purse.asked_at = at
        answer, turn = await self._bank.reserve(wishes, asks)
        for purse, share in zip(purses, answer.shares, strict=True):
            if share is not None:
                purse.allowance_id = share.allowance_id
                purse.learn(share.amount, turn)
        for each, full in zip(waiting, answer.full, strict=True):
            if not each.answer.done():
                each.answer.set_result(full)

    def _learn(self, shares: Mapping[int, int], turn: int, *, complete: bool = False) -> None:
        for purse in self._purses.values():
            number = purse.allowance_id
            if number is None:
                continue
            if number in shares:
                purse.learn(shares[number], turn)
            elif complete:
                # Somebody has written it off, or its budget is gone.
                purse.learn(0, turn)

    def _take_budgets(self, budgets: list[Budget]) -> None:
        before = {budget.id: budget for budget in self._budgets}
        after = {budget.id: budget for budget in budgets}
        self._budgets = budgets
        self._applying.clear()
        for key, purse in list(self._purses.items()):
            budget = after.get(key[0])
            if budget is None or budget.tz != purse.budget.tz:
                del self._purses[key]
            elif budget != before.get(key[0]):
                purse.budget = budget
                # What is held goes back, because there may be less room now than was reserved.
                purse.used_at = float("-inf")

    def _forget_old(self, now: datetime) -> None:
        for key, purse in list(self._purses.items()):
            ended = purse.span.end is not None and purse.span.end <= now
            if ended and not purse.held and not purse.promised:
                del self._purses[key]


def _refusal(full: Standing, parts: Iterable[Part]) -> InsufficientQuota:
    budget = full.budget
    needed = next(part.amount for part in parts if part.purse.budget.id == budget.id)
    unit = "USD" if budget.measure is Measure.COST else budget.measure
    limit, spent, reserved, need = (
        f"{format_amount(amount, budget.measure)} {unit}"
        for amount in (budget.limit, full.spent, full.reserved, needed)
    )
    quota = Quota(limit=limit, spent=spent, reserved=reserved, needed=need, ends_at=full.end)
    return InsufficientQuota(budget.whose, quota)


def _moved(part: Part, amounts: Amounts) -> int:
    """Return what the ledger will take out of the allowance for this."""
    return max(0, min(amounts.of(part.purse.budget.measure), part.amount))


def _needs(parts: Sequence[Part], place: Mapping[int, int]) -> dict[int, int]:
    return {place[id(part.purse)]: part.amount for part in parts}


def _wish(purse: Purse, needs: Sequence[int]) -> Wish:
    # Those who wait have been promised their part already.
    held = purse.free + sum(needs)
    need = max(needs, default=purse.need)
    return Wish(purse.budget.id, purse.span, held, need, max(0, purse.wanted - max(0, purse.free)))


@contextlib.contextmanager
def _told(waiting: Iterable[_Waiting]) -> Iterator[None]:
    """Tell those who wait what went wrong with the question."""
    try:
        yield
    except MeteringUnavailable as fault:
        for each in waiting:
            if not each.answer.done():
                each.answer.set_exception(fault)
    except Exception as fault:
        log.exception("the budgets could not be asked")
        for each in waiting:
            if not each.answer.done():
                each.answer.set_exception(MeteringUnavailable(f"The budgets could not be checked: {fault}"))
