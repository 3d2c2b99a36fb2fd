"""The treasury against a bank that is a small model of the database; `tests/quota` has the real one."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from meter.allowances.reservations import Part
from meter.allowances.treasury import WAIT_SECONDS_AWAY, WAIT_SECONDS_MAX, Bank, Treasury
from meter.core.allowances import Answer, Ask, Beat, Room, Share, Wish, decide
from meter.core.budgets import Budget, Enforcement, Measure, Standing
from meter.core.clock import Clock
from meter.core.errors import InsufficientQuota, MeteringUnavailable
from meter.core.events import UsageEvent
from meter.core.prices import OVERSHOOT
from tests.core.test_budgets import event
from tests.patience import soon
from tests.store.test_budgets import budget

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
T = TypeVar("T")


class Vault:
    """One window of one budget: what is held of it, and what is free."""

    def __init__(self, found: Budget) -> None:
        self.budget = found
        self.free = found.limit
        self.held = 0
        self.turn = 0
        self.away = False
        self.lost = False
        self.questions = 0
        self.now = NOW
        self.answers = asyncio.Event()
        self.answers.set()

    @property
    def bank(self) -> Bank:
        """What the treasury asks."""
        return Bank(self._reserve, self._give_back, self._beat)

    async def _reserve(self, wishes: Sequence[Wish], asks: Sequence[Ask]) -> tuple[Answer, int]:
        (wish,) = wishes
        self.questions += 1
        await self.answers.wait()
        self._answer()
        room = Room(held=wish.held, free=self.free)
        decisions = decide(asks, {0: room})
        self.free, self.held = room.free, self.held + room.taken
        full = [None if at is None else self._standing() for at in decisions]
        return self._told(Answer(full, [self._share()]))

    async def _give_back(self, amounts: Mapping[int, int]) -> tuple[dict[int, Share], int]:
        self._answer()
        self.free, self.held = self.free + amounts[1], self.held - amounts[1]
        return self._told({1: self._share()})

    async def _beat(self, _holds: bool) -> tuple[Beat, int]:
        self._answer()
        return self._told(Beat(self.now, [self.budget], {1: self._share()}))

    def _answer(self) -> None:
        if self.away:
            raise MeteringUnavailable("away")
        self.turn += 1

    def _told(self, answer: T) -> tuple[T, int]:
        if self.lost:
            raise MeteringUnavailable("the answer was lost")
        return answer, self.turn

    def _share(self) -> Share:
        return Share(self.budget.id, self.budget.span(NOW).start, 1, self.held, self.free)

    def _standing(self) -> Standing:
        span = self.budget.span(NOW)
        reserved = self.budget.limit - self.free
        return Standing(budget=self.budget, start=span.start, end=span.end, spent=0, reserved=reserved)


class Office:
    """A treasury and its vault."""

    def __init__(self, **fields: object) -> None:
        self.vault = Vault(budget(limit=100, measure=Measure.TOKENS, **fields))
        self.seconds = 0.0
        clock = Clock(now=lambda: NOW, monotonic=lambda: self.seconds)
        self.treasury = Treasury(self.vault.bank, clock)
        self.treasury.start_from([self.vault.budget])

    async def admit(self, tokens: int) -> Any:
        """Ask for a request's admission."""
        purses = self.treasury.purses("team", "key", "model", NOW)
        return await self.treasury.admit(tuple(Part(purse, tokens) for purse in purses))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test."""
    asyncio.run(work)


def used(tokens: int) -> UsageEvent:
    """Make an event that has used so many tokens."""
    return event(prompt_tokens=tokens, completion_tokens=0)


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    """A refusal names limit, spent, reserved and what the request may need."""

    async def test() -> None:
        office = Office()
        await office.admit(60)
        with pytest.raises(InsufficientQuota, match=r"limit 100 tokens.*reserved 60 tokens.*need 41 tokens"):
            await office.admit(41)
        await office.admit(40)

    run(test())


def test_a_refusal_does_not_stand_in_the_way_of_the_next() -> None:
    """A large request that is refused leaves the room to a small one that waited behind it."""

    async def test() -> None:
        office = Office()
        office.vault.answers.clear()
        large = asyncio.create_task(office.admit(101))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        small = asyncio.create_task(office.admit(100))
        await asyncio.sleep(0)
        office.vault.answers.set()

        with pytest.raises(InsufficientQuota):
            await large
        await small

    run(test())


def test_a_lost_answer_to_giving_back_is_taken_for_given() -> None:
    """What may have been given back is not spent again before the database says that it is still there."""

    async def test() -> None:
        office = Office()
        reservation = await office.admit(60)
        office.treasury.cancel(reservation)
        office.vault.lost = True
        with pytest.raises(MeteringUnavailable):
            await office.treasury.return_idle()
        office.vault.lost = False
        office.vault.free -= 100  # Somebody else has taken all of it.

        with pytest.raises(InsufficientQuota):
            await office.admit(60)

    run(test())


def test_a_window_that_comes_back_has_one_purse() -> None:
    """Where clocks went past a window's end and back, what is promised there is not given back as idle."""

    async def test() -> None:
        office = Office(period="hour")
        office.treasury.cancel(await office.admit(60))
        office.seconds += 10
        await office.treasury.return_idle()
        office.vault.now = NOW + timedelta(hours=2)
        await office.treasury.beat()
        office.vault.now = NOW
        await office.admit(60)
        await office.treasury.beat()
        office.seconds += 10
        await office.treasury.return_idle()

        assert (office.vault.held, office.vault.free) == (60, 40)
        with pytest.raises(InsufficientQuota):
            await office.admit(41)

    run(test())


def test_a_lost_reservation_is_found_by_the_next_beat() -> None:
    """What the database has reserved without anybody hearing of it goes back."""

    async def test() -> None:
        office = Office()
        office.vault.lost = True
        with pytest.raises(MeteringUnavailable):
            await office.admit(60)
        office.vault.lost = False
        assert office.vault.held == 60

        await office.treasury.beat()
        await office.treasury.return_idle()

        assert (office.vault.held, office.vault.free) == (0, 100)

    run(test())


def test_a_database_that_hangs_is_waited_for_once() -> None:
    """The first request waits; those after it hear soon that nobody answers, until somebody does."""

    async def test() -> None:
        office = Office()
        office.vault.answers.clear()
        began = time.monotonic()
        with pytest.raises(MeteringUnavailable):
            await office.admit(1)
        heard = time.monotonic()
        with pytest.raises(MeteringUnavailable):
            await soon(WAIT_SECONDS_MAX / 2, office.admit(1))
        assert heard - began >= WAIT_SECONDS_MAX
        assert time.monotonic() - heard >= WAIT_SECONDS_AWAY
        office.vault.answers.set()
        await office.treasury.beat()
        await office.admit(1)

    run(test())


def test_without_the_database_a_standard_budget_admits() -> None:
    """A budget that may err lets requests pass where nobody can say that there is no room."""

    async def test() -> None:
        office = Office(enforcement=Enforcement.STANDARD)
        office.vault.away = True
        assert await office.admit(1000)

    run(test())


def test_more_than_a_strict_budget_expected_is_flagged() -> None:
    """Tokens beyond the bound are an overshoot, as a higher cost is; fewer are none."""

    async def test() -> None:
        office = Office()
        flagged = office.treasury.settle(used(31), await office.admit(30))
        well = office.treasury.settle(used(30), await office.admit(30))

        assert flagged.anomalies == (OVERSHOOT,)
        assert well.anomalies == ()
        assert [part.amount for part in flagged.reserved] == [30]

    run(test())


def test_what_is_never_going_to_be_shipped_is_forgotten() -> None:
    """An event that the ledger refuses for ever keeps nothing reserved."""

    async def test() -> None:
        office = Office()
        settled = office.treasury.settle(used(30), await office.admit(30))
        await office.treasury.return_idle()
        assert office.vault.held == 30

        office.treasury.forget([settled.event_id])
        await office.treasury.return_idle()

        assert office.vault.held == 0

    run(test())


def test_growing_where_there_is_no_room_is_refused() -> None:
    """A stream gets more as long as there is room, and keeps what it has when there is none."""

    async def test() -> None:
        office = Office(enforcement=Enforcement.STANDARD)
        reservation = await office.admit(40)
        (part,) = reservation.parts

        assert await office.treasury.grow(reservation, part, 60) is None
        assert await office.treasury.grow(reservation, part, 1) is not None
        assert part.amount == 100
        assert part.growing

    run(test())


def test_growing_is_tried_again_after_an_outage() -> None:
    """A stream that could not ask for more asks again."""

    async def test() -> None:
        office = Office(enforcement=Enforcement.STANDARD)
        reservation = await office.admit(40)
        (part,) = reservation.parts
        office.vault.away = True
        with pytest.raises(MeteringUnavailable):
            await office.treasury.grow(reservation, part, 60)
        office.vault.away = False

        assert not part.growing
        assert part.purse.promised == 40
        assert await office.treasury.grow(reservation, part, 60) is None

    run(test())


def test_what_applies_is_known_only_after_the_first_word() -> None:
    """Until somebody has said which budgets there are, a treasury does not know."""

    async def test() -> None:
        vault = Vault(budget())
        treasury = Treasury(vault.bank, Clock(now=lambda: NOW, monotonic=lambda: 0.0))
        vault.away = True
        with pytest.raises(MeteringUnavailable):
            await treasury.beat()
        assert not treasury.knows
        vault.away = False
        await treasury.beat()
        assert treasury.knows

    run(test())
