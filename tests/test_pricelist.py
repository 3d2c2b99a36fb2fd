"""The prices of the real package, as the book takes them over, and the names under which they are found."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseContains,
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ConditionalPrice,
    MatchLogic,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from meter import pricelist
from meter.app.seeding import read_package
from meter.core.model_names import CATALOGS
from meter.core.money import format_usd_per_mtok
from meter.core.prices import BEGINNING, Hours, LongContext, Price, PriceBook, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
# A gateway like RouterHub, whose host has no list of its own, and OpenRouter, whose host has one.
CATALOGS_OF_UPSTREAMS = {"openrouter": "openrouter", "deepseek": "deepseek"}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Give a book with what the installed package lists."""
    return PriceBook(numbered(), CATALOGS_OF_UPSTREAMS)


def numbered() -> list[Price]:
    """List what the installed package lists, numbered as the database does."""
    found = pricelist.versions(data_snapshot.get_snapshot().providers)
    return [msgspec.structs.replace(each, id=number) for number, each in enumerate(found, 1)]


def convert(model: ModelInfo) -> list[Price]:
    """Convert a model of one list."""
    return list(pricelist.versions([Provider(id="openai", name="", api_pattern="", models=[model])]))


def price(amount: str = "1", **amounts: object) -> ModelPrice:
    """Make the package's kind of price."""
    return ModelPrice(input_mtok=Decimal(amount), **amounts)  # type: ignore[arg-type]


def model(
    prices: ModelPrice | list[ConditionalPrice], match: MatchLogic | None = None, **rest: object
) -> ModelInfo:
    """Make the package's kind of model."""
    return ModelInfo(id="m", match=match or ClauseEquals("m"), prices=prices, **rest)  # type: ignore[arg-type]


NAMES = [
    # RouterHub's names.
    ("gateway", "anthropic/claude-sonnet-4", "anthropic", "3.00", "15.00"),
    ("gateway", "google/gemini-2.5-pro", "google", "1.25", "10.00"),
    ("gateway", "openai/gpt-4.1", "openai", "2.00", "8.00"),
    ("gateway", "openai/gpt-5", "openai", "1.25", "10.00"),
    # Snapshots, as the vendors date them.
    ("gateway", "anthropic/claude-sonnet-4-20250514", "anthropic", "3.00", "15.00"),
    ("gateway", "openai/gpt-4.1-2025-04-14", "openai", "2.00", "8.00"),
    ("gateway", "openai/o3-2025-04-16", "openai", "2.00", "8.00"),
    # Bare names.
    ("gateway", "claude-sonnet-4", "anthropic", "3.00", "15.00"),
    ("gateway", "claude-sonnet-4-20250514", "anthropic", "3.00", "15.00"),
    ("gateway", "gpt-4.1", "openai", "2.00", "8.00"),
    ("gateway", "gemini-2.5-pro", "google", "1.25", "10.00"),
    ("gateway", "grok-4", "x-ai", "3.00", "15.00"),
    # OpenRouter's slugs, asked for and served.
    ("openrouter", "anthropic/claude-4.6-sonnet-20260217", "openrouter", "3.00", "15.00"),
    ("gateway", "anthropic/claude-4.6-sonnet-20260217", "openrouter", "3.00", "15.00"),
    ("openrouter", "anthropic/claude-sonnet-4", "openrouter", "3.00", "15.00"),
    ("openrouter", "openai/gpt-4.1", "openrouter", "2.00", "8.00"),
    # OpenRouter's list lacks it, the vendor's has it.
    ("openrouter", "x-ai/grok-4", "x-ai", "3.00", "15.00"),
]


@pytest.mark.parametrize(("upstream", "name", "catalog", "prompt", "completion"), NAMES)
def test_names_that_have_a_price(
    book: PriceBook, upstream: str, name: str, catalog: str, prompt: str, completion: str
) -> None:
    """RouterHub's and OpenRouter's names, snapshots and bare names have the price of the surest list."""
    found = book.find(upstream, name, None, None, NOW)

    assert found is not None
    assert found.price.catalog == catalog
    rates = found.price.rates
    assert [format_usd_per_mtok(rate or 0) for rate in (rates.prompt, rates.completion)] == [
        prompt,
        completion,
    ]


@pytest.mark.parametrize(
    "name",
    [
        "deepseek-chat-123",
        "gpt-4.1-whatever",
        "openai/gpt-4.1-whatever",
        "anthropic/claude-sonnet-4-20250514-v2",
        "somebody/claude-sonnet-4",
        "claude",
        "gpt",
        "",
    ],
)
def test_names_that_have_none(book: PriceBook, name: str) -> None:
    """A name that only begins like a model's has no price: a guess would be a wrong bill."""
    for upstream in ("gateway", "openrouter", "deepseek"):
        assert book.find(upstream, name, None, None, NOW) is None


@pytest.mark.parametrize(
    ("name", "when", "prompt", "completion"),
    [
        ("o3", datetime(2025, 6, 9, 23, 59, 59, 999_999, tzinfo=UTC), "10.00", "40.00"),
        ("o3", datetime(2025, 6, 10, tzinfo=UTC), "2.00", "8.00"),
        # Hours hold since the last date of the model, and not before.
        ("deepseek-v4-flash", datetime(2026, 6, 1, 2, tzinfo=UTC), "0.14", "0.28"),
        ("deepseek-v4-flash", datetime(2026, 9, 10, 2, tzinfo=UTC), "0.30", "1.20"),
        ("deepseek-v4-flash", datetime(2026, 9, 10, 4, tzinfo=UTC), "0.15", "0.60"),
        ("deepseek-v4-flash", datetime(2026, 9, 10, 9, 59, tzinfo=UTC), "0.30", "1.20"),
    ],
)
def test_dates(book: PriceBook, name: str, when: datetime, prompt: str, completion: str) -> None:
    """A price is that of the instant."""
    found = book.find("gateway", name, None, None, when)

    assert found is not None
    rates = found.price.rates
    assert [format_usd_per_mtok(rate or 0) for rate in (rates.prompt, rates.completion)] == [
        prompt,
        completion,
    ]


@pytest.mark.parametrize(
    ("name", "tier", "prompt", "assumed"),
    [
        ("gpt-5", "flex", "0.625", False),
        ("gpt-5", "priority", "2.50", False),
        ("gpt-4.1", "priority", "3.50", False),
        ("gpt-4.1", "flex", "2.00", True),
        ("gpt-5", "default", "1.25", False),
        ("gpt-5", "scale", "1.25", True),
    ],
)
def test_tiers(book: PriceBook, name: str, tier: str, prompt: str, assumed: bool) -> None:
    """Flex and priority have their prices, and a tier without one is said to be assumed standard."""
    found = book.find("gateway", name, None, tier, NOW)

    assert found is not None
    assert (format_usd_per_mtok(found.price.rates.prompt or 0), found.tier_assumed) == (prompt, assumed)


def test_long_contexts(book: PriceBook) -> None:
    """At the threshold the whole request still costs the base price, and one token more the other."""
    found = book.find("gateway", "google/gemini-2.5-pro", None, None, NOW)

    assert found is not None
    assert format_usd_per_mtok(found.price.rates_for(200_000).completion or 0) == "10.00"
    assert format_usd_per_mtok(found.price.rates_for(200_001).completion or 0) == "15.00"


def test_every_list_that_is_looked_at_is_there(book: PriceBook) -> None:
    """The package has every list that a name can lead to, and no other is taken over."""
    listed = {each.catalog for each in pricelist.versions(data_snapshot.get_snapshot().providers)}

    assert listed == CATALOGS


def test_the_package_agrees() -> None:
    """Each model's id and standard price now is what the package itself answers for it."""
    providers = data_snapshot.get_snapshot().providers
    ours = PriceBook(numbered(), {catalog: catalog for catalog in CATALOGS})
    compared = 0
    for provider in providers:
        for each in provider.models if provider.id in CATALOGS else ():
            found = ours.find(provider.id, each.id, None, None, NOW)
            theirs = each.get_prices(NOW).input_mtok
            if found is None or found.price.catalog != provider.id:
                continue
            amount = theirs.base if isinstance(theirs, TieredPrices) else theirs
            rate = found.price.rates.prompt
            assert (rate is None) == (amount is None)
            assert rate is None or abs(Decimal(rate) - (amount or 0) * 10**6) <= Decimal("0.5"), each.id
            compared += 1

    assert compared > 1_000


def test_names_of_a_model() -> None:
    """A model has its id, what is equal to it, and what it begins with, as names; nothing is matched."""
    match = ClauseOr([ClauseEquals("a"), ClauseOr([ClauseStartsWith("b")]), ClauseContains("c")])

    assert [each.model for each in convert(model(price(), match))] == ["m", "a", "b"]


def test_a_name_that_two_models_claim() -> None:
    """An id is surer than what another model calls itself, and the first of two is surer than the second."""
    first = ModelInfo(id="x", match=ClauseOr([ClauseEquals("y"), ClauseEquals("z")]), prices=price("1"))
    second = ModelInfo(id="y", match=ClauseEquals("z"), prices=price("2"))
    provider = Provider(id="openai", name="", api_pattern="", models=[first, second])

    rates = {each.model: each.rates.prompt for each in pricelist.versions([provider])}

    assert rates == {"x": 1_000_000, "y": 2_000_000, "z": 1_000_000}


def test_kinds_and_steps() -> None:
    """Every kind is taken over; where only one kind has a step, the others keep their price."""
    amounts = price(
        "1",
        cache_read_mtok=Decimal("0.1"),
        cache_write_mtok=Decimal("1.25"),
        cache_write_1h_mtok=Decimal(2),
        input_audio_mtok=Decimal(3),
        output_mtok=TieredPrices(base=Decimal(5), tiers=[Tier(100, Decimal(6)), Tier(200, Decimal(7))]),
        output_audio_mtok=Decimal(8),
        requests_kcount=Decimal(12),
        web_searches_kcount=Decimal(10),
    )

    (found,) = convert(model(amounts))

    rates = Rates(
        prompt=1_000_000,
        cached=100_000,
        cache_write=1_250_000,
        cache_write_1h=2_000_000,
        input_audio=3_000_000,
        completion=5_000_000,
        output_audio=8_000_000,
        request=12_000_000_000,
    )
    assert found.rates == rates
    assert [(step.above_tokens, step.rates.completion, step.rates.prompt) for step in found.long_context] == [
        (100, 6_000_000, 1_000_000),
        (200, 7_000_000, 1_000_000),
    ]
    assert isinstance(found.long_context[0], LongContext)
    assert found.note == "also charged, and not told apart here: web searches"


def test_what_is_not_sold_by_the_token() -> None:
    """A model that is sold by the hour or the picture alone is left out."""
    assert convert(model(ModelPrice(audio_hours=Decimal(1)))) == []


def test_rounding() -> None:
    """What is finer than a picodollar a token is rounded half up, and the note says of which kind."""
    (found,) = convert(model(price("0.0000005", output_mtok=Decimal("0.0000014999"))))

    assert (found.rates.prompt, found.rates.completion) == (1, 1)
    assert found.note == "rounded to a picodollar a token: completion, prompt"


def test_dates_and_hours() -> None:
    """The first price holds from the beginning, and hours in UTC from the last date."""
    day = datetime(2026, 9, 10, tzinfo=UTC)
    prices = [
        ConditionalPrice(StartDateConstraint(datetime(2026, 1, 1, tzinfo=UTC).date()), prices=price("1")),
        ConditionalPrice(StartDateConstraint(day.date()), prices=price("2")),
        ConditionalPrice(
            TimeOfDateConstraint((day + timedelta(hours=1)).timetz(), (day + timedelta(hours=4)).time()),
            prices=price("3"),
        ),
    ]

    found = convert(model(prices))

    assert [(each.effective_from, each.hours, each.rates.prompt) for each in found] == [
        (BEGINNING, None, 1_000_000),
        (day, None, 2_000_000),
        (day, Hours(start_minute=60, end_minute=240), 3_000_000),
    ]


def test_a_later_entry_hides_earlier_ones() -> None:
    """The package believes its last entry first, so that an older date after a newer one hides it."""
    day = datetime(2026, 9, 10, tzinfo=UTC)
    prices = [
        ConditionalPrice(prices=price("1")),
        ConditionalPrice(StartDateConstraint(day.date()), prices=price("2")),
        ConditionalPrice(StartDateConstraint((day - timedelta(days=9)).date()), prices=price("3")),
    ]

    assert [each.rates.prompt for each in convert(model(prices))] == [1_000_000, 3_000_000]


def test_tiers_over_dates() -> None:
    """A tier begins with its first price, keeps what it does not change, and follows the standard price."""
    start, change = datetime(2026, 10, 12, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    prices = [
        ConditionalPrice(prices=price("1", output_mtok=Decimal(5))),
        ConditionalPrice(StartDateConstraint(change.date()), prices=price("2", output_mtok=Decimal(6))),
    ]
    fast = PriceVariant({"service_tier": "fast"}, price("9"), StartDateConstraint(start.date()))
    batch = PriceVariant({"processing": "batch"}, price("0.5"))

    found = [each for each in convert(model(prices, price_variants=[batch, fast])) if each.service_tier]

    rows = [(each.service_tier, each.effective_from, each.rates.completion) for each in found]
    assert rows == [
        ("priority", start, 5_000_000),
        ("priority", change, 6_000_000),
        ("fast", start, 5_000_000),
        ("fast", change, 6_000_000),
    ]
    assert {each.rates.prompt for each in found} == {9_000_000}


def test_priority_is_surer_than_fast() -> None:
    """A model with both tiers answers `priority` at the price of that name."""
    variants = [
        PriceVariant({"service_tier": "fast"}, price("9")),
        PriceVariant({"service_tier": "priority"}, price("7")),
    ]

    found = {
        each.service_tier: each.rates.prompt for each in convert(model(price(), price_variants=variants))
    }

    assert found == {"": 1_000_000, "priority": 7_000_000, "fast": 9_000_000}


def test_it_is_read_in_a_process_of_its_own() -> None:
    """Reading the package leaves its libraries and its memory outside of the process that asked."""
    program = (
        "import sys; from datetime import datetime, UTC\n"
        "from meter.app.seeding import read_package\n"
        "found = read_package(datetime.now(UTC))\n"
        "print(len(found), sorted({'pydantic', 'genai_prices', 'httpx2'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    count, _, modules = done.stdout.strip().partition(" ")
    assert int(count) > 2_000
    assert modules == "[]"


def test_versions_say_where_they_are_from() -> None:
    """Each version names the package with its version, and when it was taken over."""
    found = read_package(NOW)

    assert {each.source for each in found} == {"genai-prices 0.2.3"}
    assert {each.created_at for each in found} == {NOW}
