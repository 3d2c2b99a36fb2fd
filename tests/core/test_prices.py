"""What tokens cost: kinds that don't overlap, versions by date, tiers, and numbers that are exact."""

import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.money import parse_usd
from meter.core.prices import (
    NAMES_REMEMBERED_MAX,
    Hours,
    LongContext,
    Price,
    PriceBook,
    Rates,
    quote,
    rate,
)
from meter.core.tariffs import KINDS, quantities
from meter.core.usage import ReportedUsage, TokenUsage, normalise

# `make money` tries a hundred thousand.
EXAMPLES = int(os.environ.get("METER_TEST_MONEY_EXAMPLES", "500"))
T = datetime(2026, 11, 1, tzinfo=UTC)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def mtok(text: str) -> int:
    """Read USD a million tokens as picodollars a token."""
    return parse_usd(text) // 10**6


def price(number: int = 1, **fields: object) -> Price:
    """Make a version: of a model at 3 and 15 USD a million tokens unless told otherwise."""
    values: dict[str, object] = {
        "id": number,
        "catalog": "",
        "model": "model",
        "effective_from": BEGINNING,
        "rates": Rates(prompt=mtok("3"), completion=mtok("15")),
        "source": "set",
        "created_at": T,
    }
    return Price(**values | fields)  # type: ignore[arg-type]


def event(**fields: object) -> UsageEvent:
    """Make an event that used a million prompt tokens."""
    values: dict[str, object] = {
        "event_id": "019ab1c2-0000-7000-8000-000000000000",
        "started_at": T,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "gateway",
        "model_requested": "model",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "prompt_tokens": 10**6,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


counts = st.none() | st.integers(0, 10**9)
reported = st.builds(
    ReportedUsage, **{name: counts for name in ReportedUsage.__struct_fields__ if name != "anomalies"}
)
rates = st.builds(
    Rates, **{kind: st.none() | st.integers(0, 10**9) for kind in KINDS}, request=st.integers(0, 10**12)
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(reported, rates)
def test_costs_are_exact(usage: ReportedUsage, drawn: Rates) -> None:
    """The cost is the sum that fractions give, to the last digit, or unknown where a rate is."""
    normalised, _ = normalise(usage, "model")
    version = price(rates=drawn)
    found = quote(version, normalised)

    exact, unknown = Fraction(drawn.request, 10**12), False
    for kind, tokens in quantities(normalised):
        own: int | None = getattr(drawn, kind)
        of_kind = drawn.prompt if kind == "cached" and own is None else own
        if tokens and of_kind is None:
            unknown = True
        elif of_kind is not None:
            # USD a million tokens, times tokens.
            exact += Fraction(of_kind, 10**6) * Fraction(tokens, 10**6)
    assert found.cost == (None if unknown else exact * 10**12)
    # The same without its summands, which is how events are rated.
    assert PriceBook([version]).look_up("gateway", "model", None, None, T).cost(normalised) == found.cost


@pytest.mark.parametrize(
    ("prompt_tokens", "usd"),
    [(0, "0"), (199_999, "0.599997"), (200_000, "0.6"), (200_001, "1.200006"), (300_000, "1.8")],
)
def test_a_long_prompt_costs_more_as_a_whole(prompt_tokens: int, usd: str) -> None:
    """Past the threshold, and not at it, the whole request is at the higher rate."""
    tiered = price(
        rates=Rates(prompt=mtok("3")),
        long_context=(LongContext(above_tokens=200_000, rates=Rates(prompt=mtok("6"))),),
    )

    used = TokenUsage(prompt_tokens, 0)
    assert quote(tiered, used).cost == parse_usd(usd)
    assert PriceBook([tiered]).look_up("gateway", "model", None, None, T).cost(used) == parse_usd(usd)


def test_the_longest_context_that_is_passed_counts() -> None:
    """Of several thresholds the last one that was passed counts."""
    steps = [(32_000, 2), (128_000, 4)]
    tiered = price(
        rates=Rates(prompt=1),
        long_context=tuple(LongContext(above_tokens=at, rates=Rates(prompt=to)) for at, to in steps),
    )

    costs = [quote(tiered, TokenUsage(tokens, 0)).cost for tokens in (32_000, 32_001, 128_000, 128_001)]

    assert costs == [32_000, 64_002, 256_000, 512_004]


def test_cached_tokens_without_a_price_cost_what_the_prompt_does() -> None:
    """The one default there is; every other kind without a rate leaves the event unpriced."""
    usage = TokenUsage(10, 0, cached_tokens=4)

    assert quote(price(rates=Rates(prompt=3)), usage).cost == 30
    assert quote(price(rates=Rates(prompt=3, cached=0)), usage).cost == 18


@pytest.mark.parametrize(
    ("usage", "kind"),
    [
        (TokenUsage(10, 5), "completion"),
        (TokenUsage(10, 0, cache_write_tokens=1), "cache_write"),
        (TokenUsage(10, 0, cache_write_tokens=1, cache_write_1h_tokens=1), "cache_write_1h"),
        (TokenUsage(10, 0, input_audio_tokens=1), "input_audio"),
        (TokenUsage(0, 5, output_audio_tokens=5), "output_audio"),
    ],
)
def test_a_kind_without_a_rate_leaves_the_event_unpriced(usage: TokenUsage, kind: str) -> None:
    """Unknown is not free."""
    found = quote(price(rates=Rates(prompt=3)), usage)

    assert found.cost is None
    assert found.unpriced == (kind,)


def test_a_fee_for_the_request() -> None:
    """A request may cost something beside its tokens."""
    found = quote(price(rates=Rates(prompt=1, request=5_000_000_000)), TokenUsage(7, 0))

    assert found.cost == parse_usd("0.005000000007")
    assert [item.kind for item in found.items] == ["prompt", "request"]


def test_versions_by_date() -> None:
    """What starts a millisecond before a change has the old price, what starts with it the new one."""
    book = PriceBook([price(1), price(2, effective_from=T, rates=Rates(prompt=1))])

    before = rate(event(started_at=T - timedelta(milliseconds=1)), book)
    after = rate(event(started_at=T), book)

    assert (before.price_id, before.cost) == (1, parse_usd("3"))
    assert (after.price_id, after.cost) == (2, 10**6)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(["", "flex"]), st.booleans()), max_size=6),
    st.lists(st.tuples(st.integers(-4 * 60_000, 4 * 60_000), st.sampled_from(["flex", None])), min_size=1),
)
def test_what_is_remembered_is_what_would_be_found(
    versions: list[tuple[int, str, bool]], asked: list[tuple[int, str | None]]
) -> None:
    """In whatever order instants come, to the millisecond, a book finds what a new one would."""
    minute = T.hour * 60 + T.minute
    prices = [
        price(
            number,
            effective_from=T + timedelta(minutes=at),
            service_tier=tier,
            hours=Hours(start_minute=minute, end_minute=minute + 2) if hours else None,
        )
        for number, (at, tier, hours) in enumerate(versions, 1)
    ]
    book = PriceBook(prices)

    for milliseconds, tier in asked:
        when = T + timedelta(milliseconds=milliseconds)
        for each in (when, when + timedelta(milliseconds=1)):
            fresh = PriceBook(prices)
            question = ("gateway", "model", None, tier, each)
            assert book.find(*question) == fresh.find(*question)
            assert book.tiers("gateway", "model", each) == fresh.tiers("gateway", "model", each)


def test_the_later_of_two_versions_for_one_instant_counts() -> None:
    """A mistake is mended by another version for the same instant."""
    book = PriceBook([price(7, effective_from=T, rates=Rates(prompt=7)), price(3, effective_from=T)])

    assert rate(event(), book).price_id == 7


def test_before_its_first_version_a_model_has_no_price() -> None:
    """A price does not reach back further than it says."""
    book = PriceBook([price(effective_from=T)])

    assert rate(event(started_at=T - timedelta(days=1)), book).cost is None


def test_hours_of_the_day() -> None:
    """A price may hold for a part of every day, from a date on, also across midnight."""
    hours = Hours(start_minute=16 * 60 + 30, end_minute=30)
    book = PriceBook([price(1), price(2, effective_from=T, hours=hours)])
    starts = ["16:29", "16:30", "23:59", "00:29", "00:30"]

    def found(text: str, day: datetime) -> int | None:
        hour, minute = map(int, text.split(":"))
        return rate(event(started_at=day.replace(hour=hour, minute=minute)), book).price_id

    assert [found(text, T + timedelta(days=3)) for text in starts] == [1, 2, 2, 2, 1]
    assert [found(text, T - timedelta(days=3)) for text in starts] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("tier", "price_id", "assumed"),
    [
        (None, 1, False),
        ("default", 1, False),
        ("auto", 1, False),
        ("on_demand", 1, False),
        ("flex", 2, False),
        ("scale", 1, True),
    ],
)
def test_the_tier_that_was_served_counts(tier: str | None, price_id: int, assumed: bool) -> None:
    """A tier has a price of its own; one that has none is charged as standard, and that is said."""
    book = PriceBook([price(1), price(2, service_tier="flex")])

    rated = rate(event(service_tier=tier), book)

    assert rated.price_id == price_id
    assert ("tier_assumed_standard" in rated.anomalies) is assumed


@pytest.mark.parametrize(
    ("requested", "served", "price_id"),
    [
        ("router", "dear", 2),
        ("router", None, 1),
        ("router", "unheard-of", 1),
        ("dear", "router", 1),
        ("unheard-of", "neither", None),
    ],
)
def test_the_model_that_answered_counts(requested: str, served: str | None, price_id: int | None) -> None:
    """The price is that of the model that answered, and of the one asked for where that has none."""
    book = PriceBook([price(1, model="router"), price(2, model="dear")])

    assert rate(event(model_requested=requested, model_served=served), book).price_id == price_id


def test_whose_price_counts() -> None:
    """The operator's own price wins over any list, and one for the upstream over one for all."""
    lists = [
        price(1, catalog="openrouter", model="anthropic/claude-sonnet-4"),
        price(2, catalog="anthropic", model="claude-sonnet-4"),
        price(3, model="anthropic/claude-sonnet-4"),
        price(4, model="anthropic/claude-sonnet-4", upstream="gateway"),
        price(5, model="anthropic/claude-sonnet-4", upstream="elsewhere"),
    ]
    asked = event(model_requested="anthropic/claude-sonnet-4-20250514")

    found = [rate(asked, PriceBook(lists[:known])).price_id for known in (1, 2, 3, 4, 5)]

    assert found == [1, 2, 3, 4, 4]
    assert rate(asked, PriceBook(lists[:2], {"gateway": "openrouter"})).price_id == 1


def test_what_used_nothing_costs_nothing() -> None:
    """An attempt without usage keeps its zero, whatever prices there are."""
    nothing = event(usage_source=UsageSource.NONE, cost=0, prompt_tokens=0)

    assert rate(nothing, PriceBook([price(rates=Rates(prompt=3, request=10))])) == nothing


def test_a_price_that_lacks_a_kind_is_named() -> None:
    """An event that is not priced for want of a rate says by which version."""
    rated = rate(event(completion_tokens=1), PriceBook([price(9, rates=Rates(prompt=3))]))

    assert (rated.cost, rated.price_id) == (None, 9)


def test_a_cost_that_nobody_believes_is_none() -> None:
    """A usage that would cost millions is left unpriced and pointed out, as no column would hold it."""
    rated = rate(event(prompt_tokens=10**12, completion_tokens=10**12), PriceBook([price()]))

    assert (rated.cost, rated.price_id, rated.anomalies) == (None, 1, ("implausible_cost",))


def test_what_a_book_remembers_is_bounded() -> None:
    """Clients make names up, and a book does not keep them all."""
    book = PriceBook([price()])

    for number in range(2 * NAMES_REMEMBERED_MAX + 1):
        assert not book.knows("gateway", f"made-up-{number}", T)

    assert book.knows("gateway", "model", T)
    assert book.names_remembered <= NAMES_REMEMBERED_MAX


@given(reported, rates)
def test_costs_grow_with_the_completion(usage: ReportedUsage, drawn: Rates) -> None:
    """One token more never costs less, and nothing costs less than nothing."""
    normalised, _ = normalise(usage, "model")
    longer = msgspec.structs.replace(normalised, completion_tokens=normalised.completion_tokens + 1)

    cost, more = (quote(price(rates=drawn), each).cost for each in (normalised, longer))

    assert cost is None or cost >= 0
    assert cost is None or more is None or more >= cost
