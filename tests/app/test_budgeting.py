"""Budgets as a step of admission: what is reserved under which budget, and what is refused."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from meter.allowances.sizes import COMPLETION_TOKENS_FIRST, Sizes
from meter.allowances.treasury import Treasury
from meter.app.budgeting import Budgeting
from meter.core.budgets import Budget, Enforcement, Measure
from meter.core.errors import MeterError, MeteringUnavailable, ModelNotPriced, RequestNotBounded
from meter.core.prices import BEGINNING, Hours, Price, PriceBook, Rates
from meter.core.request import read_request
from meter.proxy.admission import Candidate, Hold
from tests.allowances.test_treasury import NOW, Vault
from tests.bench.admission import CLOCK, candidate, passed
from tests.store.test_budgets import budget

PRICE = Price(
    id=1,
    catalog="",
    model="openai/gpt-4.1",
    effective_from=BEGINNING,
    rates=Rates(prompt=2, completion=8),
    source="set",
    created_at=BEGINNING,
)
UNBOUNDED = b'{"model":"openai/gpt-4.1","messages":[{"role":"user","content":"How long?"}]}'


def step(found: Budget, prices: Sequence[Price] = (PRICE,)) -> Budgeting:
    """Make the step under one budget with ample room."""
    treasury = Treasury(Vault(found).bank, CLOCK)
    treasury.start_from([found])
    book = PriceBook(prices)
    return Budgeting(treasury, Sizes(), lambda: book, overrun="finish")


def admit(made: Budgeting, body: bytes | None = None) -> Hold | None:
    """Ask for the admission of a request."""
    asks = candidate()
    if body is not None:
        asks = Candidate(asks.attempt, asks.grant, read_request(body))

    async def ask() -> Hold | None:
        return await passed(made, asks)

    return asyncio.run(ask())


def reserved(hold: Hold | None) -> int:
    """Return what was reserved."""
    assert hold is not None
    (part,) = hold.noted(candidate().attempt).reserved
    return part.amount


@pytest.mark.parametrize("measure", [Measure.COST, Measure.TOKENS])
def test_a_strict_budget_wants_a_bound(measure: Measure) -> None:
    """Where nobody knows how long the answer can be, a strict budget of costs or tokens refuses."""
    with pytest.raises(RequestNotBounded):
        admit(step(budget(measure=measure, limit=10**15)), UNBOUNDED)


def test_a_strict_budget_of_requests_wants_none() -> None:
    """A request is one request, however long its answer is, whatever the model and its price."""
    made = step(budget(measure=Measure.REQUESTS, limit=10), prices=())

    assert reserved(admit(made, UNBOUNDED)) == 1


def test_a_bound_of_tokens_has_no_cost() -> None:
    """Only a strict budget of costs charges a bounded cost where nobody says what was used."""
    hold = admit(step(budget(measure=Measure.TOKENS, limit=10**6)))
    assert hold is not None

    bound = hold.noted(candidate().attempt).bound

    assert bound is not None
    assert bound.cost is None


@pytest.mark.parametrize("enforcement", [Enforcement.STRICT, Enforcement.STANDARD])
def test_costs_need_a_price(enforcement: Enforcement) -> None:
    """A budget of costs refuses models that have no price, and is named."""
    with pytest.raises(ModelNotPriced, match=r"the budget of .* counts what it costs"):
        admit(step(budget(enforcement=enforcement), prices=()))


@pytest.mark.parametrize(
    "model",
    [
        "openai/g\u0440t-4.1",
        "openai/gpt-4.1 ",
        " openai/gpt-4.1",
        "openai/gpt\u20114.1",
        "ft:gpt-4.1:us:x:1",
        "GPT-5",
    ],
)
def test_names_that_only_look_priced_have_no_price(model: str) -> None:
    """A name in letters of another alphabet, with a space, or of a model of one's own is another model."""
    asks = candidate()
    attempt = msgspec.structs.replace(asks.attempt, model=model)
    made = step(budget(limit=10**15))

    async def ask() -> Hold | None:
        return await passed(made, Candidate(attempt, asks.grant, asks.facts))

    with pytest.raises(ModelNotPriced):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "found",
    [
        budget(enforcement=Enforcement.WARN),
        budget(enforcement=Enforcement.STANDARD, measure=Measure.TOKENS, limit=10**6),
    ],
    ids=["warn", "tokens"],
)
def test_others_need_none(found: Budget) -> None:
    """A budget that only warns, or that counts tokens, takes models without a price."""
    admit(step(found, prices=()))


def test_without_knowing_which_budgets_there_are_nothing_is_admitted() -> None:
    """A server that never heard of its budgets answers 503, which a client may try again."""
    made = Budgeting(Treasury(Vault(budget()).bank, CLOCK), Sizes(), lambda: PriceBook(()), overrun="finish")

    with pytest.raises(MeteringUnavailable):
        admit(made)


def test_a_stream_grows_by_its_answer() -> None:
    """A long prompt does not keep a stream from reserving more when its answer gets longer than expected."""
    found = budget(enforcement=Enforcement.STANDARD, measure=Measure.TOKENS, limit=10**9)
    made = step(found)
    asks = candidate()
    long = msgspec.structs.replace(asks.attempt, prompt_estimate=100_000)
    asked = Candidate(long, asks.grant, read_request(UNBOUNDED))

    async def grown(emitted_tokens: int) -> int:
        hold = await passed(made, asked)
        assert hold is not None
        hold.progressed(emitted_tokens, lambda: None)
        for _ in range(10):
            await asyncio.sleep(0)
        (part,) = hold.noted(long).reserved
        return part.amount - 100_000

    assert asyncio.run(grown(COMPLETION_TOKENS_FIRST // 2)) == COMPLETION_TOKENS_FIRST
    assert asyncio.run(grown(COMPLETION_TOKENS_FIRST)) == 2 * COMPLETION_TOKENS_FIRST


def test_prices_are_those_of_the_moment() -> None:
    """A version that begins, or an hour of the day, counts from its first instant, whoever asked before."""
    dearer = msgspec.structs.replace(PRICE, id=2, effective_from=NOW + timedelta(microseconds=1))
    by_night = msgspec.structs.replace(
        PRICE,
        id=3,
        service_tier="batch",
        effective_from=BEGINNING,
        hours=Hours(start_minute=12 * 60 + 1, end_minute=13 * 60),
    )
    book = PriceBook([PRICE, dearer, by_night])

    def ids(after: timedelta) -> list[int]:
        return [price.id for price in book.tiers("any", PRICE.model, NOW + after)]

    moments = [timedelta(microseconds=-1), timedelta(), timedelta(microseconds=1), timedelta(minutes=1)]
    expected = [[1], [1], [2], [2, 3]]
    assert [ids(moment) for moment in moments] == expected
    assert [ids(moment) for moment in reversed(moments)] == expected[::-1]


def test_what_is_refused_says_so_in_an_error_of_ours() -> None:
    """Whatever a body holds, the step admits it or refuses it, and does not fail."""
    made = step(budget(limit=10**12))
    for body in (
        b'{"model":"openai/gpt-4.1","max_tokens":1000000000,"n":1024,"messages":[]}',
        b'{"model":"openai/gpt-4.1","max_tokens":-1,"messages":[]}',
        b'{"model":"openai/gpt-4.1","max_tokens":1.5,"messages":[]}',
        b'{"model":"openai/gpt-4.1","n":0,"max_tokens":true,"messages":"no"}',
    ):
        with pytest.raises(MeterError):
            admit(made, body)
