"""Admits requests by the budgets that they fall under: from memory where this process holds enough.

Where it does not, requests wait for one question to the database, which is asked for all that wait. What is
held grows before it runs out and goes back when it is idle. All of this runs on the event loop's thread; what
comes from others is stamped by the turn in which the database said it, so that older news never counts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec

from meter.allowances.applying import Applying, applying
from meter.allowances.purse import Purse
from meter.allowances.reservations import Part, Reservation, is_strict, refusal
from meter.core.allowances import Answer, Ask, Beat, Share, Wish
from meter.core.budgets import Budget, Enforcement, Standing, charged
from meter.core.clock import Clock
from meter.core.errors import MeteringUnavailable
from meter.core.events import UsageEvent
from meter.core.prices import OVERSHOOT

# What a request waits for the database; then a strict budget refuses it, and another lets it pass.
WAIT_SECONDS_MAX = 2.0
# The same while the database gave no answer when it was last asked.
WAIT_SECONDS_AWAY = 0.1
# A request that began in a window may be admitted a moment after its end.
ENDED_FOR = timedelta(minutes=1)
# Whose budgets apply is remembered for so many pairs of a key and a model, most of them made up by clients.
REQUESTERS_REMEMBERED_MAX = 10_000

log = logging.getLogger(__name__)

T = TypeVar("T")


class Bank(NamedTuple):
    """What the database does for allowances; each answer comes with the turn in which it was given."""

    reserve: Callable[[Sequence[Wish], Sequence[Ask]], Awaitable[tuple[Answer, int]]]
    give_back: Callable[[Mapping[int, int]], Awaitable[tuple[dict[int, Share], int]]]
    beat: Callable[[bool], Awaitable[tuple[Beat, int]]]


class _Waiting(NamedTuple):
    reservation: Reservation
    answer: asyncio.Future[Standing | None]


class Treasury:
    """All that this process holds of budgets."""

    def __init__(self, bank: Bank, clock: Clock) -> None:
        self._bank = bank
        self._clock = clock
        self._budgets: list[Budget] = []
        self._purses: dict[tuple[str, datetime], Purse] = {}
        self._applying: dict[tuple[str, str, str], Applying] = {}
        self._waiting: list[_Waiting] = []
        self._asking: asyncio.Task[None] | None = None
        self._unshipped: dict[str, Reservation] = {}
        self._away = False
        self.knows = False
        """Whether it was ever told which budgets there are."""

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
        self.knows = True
        self._take_budgets(budgets)

    def purses(self, team_id: str, key_id: str, model: str, at: datetime) -> tuple[Purse, ...]:
        """Return the windows that limit a request which starts at an instant."""
        return self.applying(team_id, key_id, model, at).purses

    def applying(self, team_id: str, key_id: str, model: str, at: datetime) -> Applying:
        """Return the same, and what their budgets want to know."""
        requester = (team_id, key_id, model)
        applying = self._applying.get(requester)
        if applying is None or not applying.since <= at < applying.until:
            if len(self._applying) >= REQUESTERS_REMEMBERED_MAX:
                self._applying.clear()
            applying = self._applying[requester] = self._apply(requester, at)
        return applying

    async def admit(self, parts: tuple[Part, ...]) -> Reservation:
        """Reserve what a request needs of all its windows.

        Raises `InsufficientQuota` naming the one that has no room, and `MeteringUnavailable` where a strict
        budget cannot be asked.
        """
        reservation = self.reserve(parts)
        return reservation if isinstance(reservation, Reservation) else await reservation

    def reserve(self, parts: tuple[Part, ...]) -> Reservation | Coroutine[Any, Any, Reservation]:
        """Do the same at once where enough is held; else the coroutine does it, to be awaited at once."""
        at = self._clock.monotonic()
        reservation = Reservation(parts)
        enough, low = True, False
        for part in parts:
            purse = part.purse
            left = purse.promise(part.amount, at)
            if left < purse.pace:
                # Only then it may be time to ask for more: see `Purse.wanted`.
                enough = enough and left >= 0
                low = low or purse.low(at)
        if not enough:
            return self._reserve(reservation)
        if low:
            self._ask()
        return reservation

    async def _reserve(self, reservation: Reservation) -> Reservation:
        parts = reservation.parts
        try:
            full = await self._wait(reservation)
        except MeteringUnavailable as fault:
            if is_strict(parts):
                self.cancel(reservation)
                raise
            # Nobody can say that there is no room, and this budget may err.
            log.warning("a request was admitted past its budgets: %s", fault)
            return reservation
        except BaseException:
            self.cancel(reservation)
            raise
        if full is not None:
            raise refusal(full, parts)
        return reservation

    async def grow(self, reservation: Reservation, part: Part, amount: int) -> Standing | None:
        """Reserve more for a request under way; returns the window where there is no room for it."""
        part.growing = True
        enough = part.purse.promise(amount, self._clock.monotonic()) >= 0
        more = Reservation((Part(part.purse, amount),))
        try:
            full = None if enough else await self._wait(more)
        except BaseException:
            # It may be asked again.
            part.growing = False
            self.cancel(more)
            raise
        if reservation.settled:
            self.cancel(more)
        elif full is None:
            part.amount += amount
            part.growing = False
        return full

    def cancel(self, reservation: Reservation) -> None:
        """Take back what was reserved for a request that did not begin; doing it again does nothing."""
        for part in reservation.parts:
            part.purse.promised -= part.amount
        reservation.parts = ()

    def settle(self, event: UsageEvent, reservation: Reservation) -> UsageEvent:
        """Keep what an event has used of its reservation, until the ledger has it; put that on it."""
        reservation.settled = True
        amounts = charged(event)
        anomalies, reserved, overshot = event.anomalies, reservation.reserved, False
        for part in reservation.parts:
            purse = part.purse
            used = amounts[purse.at]
            if used > part.amount and purse.budget.enforcement is Enforcement.STRICT:
                overshot = True
            # What the ledger will take out of the allowance.
            moved = min(used, part.amount) if used > 0 else 0
            purse.promised -= part.amount - moved
            part.amount = moved
        if overshot and OVERSHOOT not in anomalies:
            anomalies = (*anomalies, OVERSHOOT)
        self._unshipped[event.event_id] = reservation
        return msgspec.structs.replace(event, reserved=reserved, anomalies=anomalies)

    def shipped(self, event_ids: Iterable[str], shares: Mapping[int, Share], turn: int) -> None:
        """Take note that events are in the ledger, which has taken them out of what is held."""
        self.forget(event_ids)
        self._away = False
        self._learn(shares, turn)

    def forget(self, event_ids: Iterable[str]) -> None:
        """Keep nothing any more for events that are in the ledger, or never will be."""
        for event_id in event_ids:
            reservation = self._unshipped.pop(event_id, None)
            if reservation is not None:
                self.cancel(reservation)

    async def beat(self) -> datetime:
        """Say that this process lives, and take in what has changed; returns the time that counts."""
        holds = any(purse.allowance_id for purse in self._purses.values())
        beat, turn = await self._answer(self._bank.beat(holds))
        self._learn(beat.shares, turn)
        self.knows = True
        if beat.budgets != self._budgets:
            self._take_budgets(beat.budgets)
        self._forget_old(beat.now)
        return beat.now

    async def return_idle(self, *, everything: bool = False) -> None:
        """Give back what requests to come will not need soon; nothing while the database is away."""
        at = self._clock.monotonic()
        going: dict[int, tuple[Purse, int]] = {}
        for purse in self._purses.values():
            amount = max(0, purse.free) if everything else purse.idle(at)
            if amount and purse.allowance_id is not None:
                purse.returning += amount
                going[purse.allowance_id] = (purse, amount)
        if not going or self._away:
            self._gone(going, lost=False)
            return
        lost = True
        try:
            amounts = {number: amount for number, (_, amount) in going.items()}
            shares, turn = await self._answer(self._bank.give_back(amounts))
            self._learn(shares, turn)
            lost = False
        finally:
            self._gone(going, lost=lost)

    def _gone(self, going: Mapping[int, tuple[Purse, int]], *, lost: bool) -> None:
        for purse, amount in going.values():
            purse.returning -= amount
            if lost:
                # It may have been given back, and somebody else may have it; the next answer tells.
                purse.held -= amount

    async def aclose(self) -> None:
        """Wait for the question under way."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _apply(self, requester: tuple[str, str, str], at: datetime) -> Applying:
        return applying(
            [
                self._purse(budget, at)
                for budget in self._budgets
                if budget.enforcement is not Enforcement.WARN and budget.applies(*requester)
            ],
            at,
        )

    def _purse(self, budget: Budget, at: datetime) -> Purse:
        span = budget.span(at)
        return self._purses.setdefault((budget.id, span.start), Purse(budget, span))

    async def _answer(self, answer: Awaitable[T]) -> T:
        """Wait for an answer of the bank, and remember whether there was one."""
        try:
            found = await answer
        except MeteringUnavailable:
            self._away = True
            raise
        self._away = False
        return found

    async def _wait(self, reservation: Reservation) -> Standing | None:
        """Wait for what the bank says; where it is full, the reservation has been taken back."""
        waiting = _Waiting(reservation, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._ask()
        try:
            return await asyncio.wait_for(
                waiting.answer, WAIT_SECONDS_AWAY if self._away else WAIT_SECONDS_MAX
            )
        except TimeoutError:
            self._away = True
            raise MeteringUnavailable("The budgets cannot be checked now; try again soon.") from None

    def _ask(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_bank())

    async def _ask_bank(self) -> None:
        """Ask for everybody who waits, until nobody does: there is one question at a time."""
        again = True
        while again:
            for each in self._waiting:
                if each.answer.done():
                    # Who has given up needs nothing any more, and may not have come to say so.
                    self.cancel(each.reservation)
            waiting = [each for each in self._waiting if not each.answer.done()]
            self._waiting = []
            try:
                await self._ask_for(waiting)
            except MeteringUnavailable as fault:
                self._fail(waiting, fault)
            except Exception as fault:
                log.exception("the budgets could not be asked")
                self._fail(waiting, MeteringUnavailable(f"The budgets could not be checked: {fault}"))
            again = bool(self._waiting)

    async def _ask_for(self, waiting: Sequence[_Waiting]) -> None:
        parts = [each.reservation.parts for each in waiting]
        involved = {id(part.purse): part.purse for each in parts for part in each}
        at = self._clock.monotonic()
        involved |= {id(purse): purse for purse in self._purses.values() if purse.low(at)}
        purses = list(involved.values())
        place = {id(purse): number for number, purse in enumerate(purses)}
        asks = [Ask(_needs(each, place)) for each in parts]
        wishes = [
            _wish(purse, [ask.needs[number] for ask in asks if number in ask.needs], at)
            for number, purse in enumerate(purses)
        ]
        if not purses:
            return
        for purse in purses:
            purse.asked_at = at
        answer, turn = await self._answer(self._bank.reserve(wishes, asks))
        for purse, share in zip(purses, answer.shares, strict=True):
            if share is not None:
                purse.learn(share, turn)
        for each, full in zip(waiting, answer.full, strict=True):
            if each.answer.done():
                continue
            if full is not None:
                # Now, because the next question may come before whoever waits for this answer.
                self.cancel(each.reservation)
            each.answer.set_result(full)

    def _fail(self, waiting: Iterable[_Waiting], fault: MeteringUnavailable) -> None:
        """Tell those who wait that there is no answer."""
        for each in waiting:
            if each.answer.done():
                continue
            if is_strict(each.reservation.parts):
                # It will not be admitted, and the next question may come before it says so.
                self.cancel(each.reservation)
            each.answer.set_exception(fault)

    def _learn(self, shares: Mapping[int, Share], turn: int) -> None:
        """Take in everything that this process holds, also what it has asked for without hearing of it."""
        by_window = {(share.budget_id, share.start): share for share in shares.values()}
        for key, share in by_window.items():
            if share.amount and key not in self._purses and (budget := self._find(share.budget_id)):
                self._purse(budget, share.start)
        for key, purse in self._purses.items():
            if purse.allowance_id is not None or key in by_window:
                purse.learn(by_window.get(key), turn)

    def _find(self, budget_id: str) -> Budget | None:
        return next((budget for budget in self._budgets if budget.id == budget_id), None)

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
                purse.put_under(budget)
                # What is held goes back, because there may be less room now than was reserved.
                purse.used_at = float("-inf")

    def _forget_old(self, now: datetime) -> None:
        for key, purse in list(self._purses.items()):
            ended = purse.span.end is not None and purse.span.end + ENDED_FOR <= now
            if ended and not purse.held and not purse.promised:
                del self._purses[key]
                # Or whoever began in that window and comes late would spend from a purse that nobody counts.
                self._applying.clear()


def _needs(parts: Sequence[Part], place: Mapping[int, int]) -> dict[int, int]:
    return {place[id(part.purse)]: part.amount for part in parts}


def _wish(purse: Purse, needs: Sequence[int], at: float) -> Wish:
    # Those who wait have been promised their part already.
    held = purse.free + sum(needs)
    wanted = max(0, purse.wanted(at) - max(0, purse.free))
    return Wish(purse.budget.id, purse.span, held, max(purse.need, *needs, 0), wanted)
