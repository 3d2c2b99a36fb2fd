"""Setting prices: versions that hold from when every process knows them, or from the beginning."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.app.actions import clock
from meter.app.pricing import list_prices, set_price
from meter.app.rating import NOTICE_SECONDS
from meter.core.price_amounts import AmountError, NewPrice
from meter.core.price_listing import Asked
from meter.core.prices import BEGINNING, Hours, LongContext, Price, PriceBook, Rates
from meter.store import audit, prices
from meter.store.database import Database

LISTED = Price(
    id=0,
    catalog="x-ai",
    model="grok-4",
    effective_from=BEGINNING,
    rates=Rates(prompt=3_000_000, completion=15_000_000),
    long_context=(LongContext(above_tokens=9, rates=Rates(prompt=6_000_000)),),
    source="genai-prices 0.2.3",
    created_at=BEGINNING,
)
NIGHT = Hours(start_minute=0, end_minute=240)


def ask(database: Database, model: str, **fields: Any) -> tuple[Price, ...]:
    """Set a price as somebody does."""
    if "max_output_tokens" not in fields:
        fields = {"prompt_usd_per_mtok": "1"} | fields
    return set_price(database, {"near": "x-ai"}, "somebody", NewPrice(model=model, **fields))


def test_what_is_returned_is_in_the_book(database: Database) -> None:
    """A version comes back as the book has it, numbered and signed."""
    (added,) = ask(database, "m", note="as agreed")

    assert prices.load(database) == [added]
    assert (added.source, added.created_by, added.note) == ("set", "somebody", "as agreed")


@pytest.mark.parametrize(
    ("model", "upstream"), [("new", ""), ("new", "near"), ("grok-4", "far"), ("x-ai/grok", "")]
)
def test_the_first_price_of_a_model(sqlite_database: Database, model: str, upstream: str) -> None:
    """The first price that a model ever has holds from the beginning."""
    prices.add(sqlite_database, [_but(LISTED, catalog="openrouter", model="grok-4")])

    (added,) = ask(sqlite_database, model, upstream=upstream)

    assert added.effective_from == BEGINNING


@pytest.mark.parametrize(
    ("model", "upstream"),
    [("grok-4", ""), ("x-ai/grok-4", ""), ("x-ai/grok-4-20250709", ""), ("grok-4", "near")],
)
def test_another_price_of_a_model(sqlite_database: Database, model: str, upstream: str) -> None:
    """A model that has a price already, be it a list's, gets another one when every process knows it."""
    prices.add(sqlite_database, [LISTED])
    before = clock.now()

    (added,) = ask(sqlite_database, model, upstream=upstream)

    notice = timedelta(seconds=NOTICE_SECONDS)
    assert before + notice <= added.effective_from <= clock.now() + notice


def test_a_price_of_one_day(sqlite_database: Database) -> None:
    """A price with a date holds from then on, in the past too."""
    start = datetime(2026, 11, 1, tzinfo=UTC)

    (added,) = ask(sqlite_database, "m", effective_from=start)

    assert added.effective_from == start


def test_the_own_price_counts(sqlite_database: Database) -> None:
    """An own price takes the place of a list's from its instant on, and not before."""
    prices.add(sqlite_database, [LISTED])
    (added,) = ask(sqlite_database, "x-ai/grok-4")
    book = PriceBook(prices.load(sqlite_database))

    before = book.find("u", "x-ai/grok-4", None, None, added.effective_from - timedelta(milliseconds=1))
    after = book.find("u", "x-ai/grok-4", None, None, added.effective_from)

    assert before is not None
    assert before.price.catalog == "x-ai"
    assert after is not None
    assert after.price == added


def test_only_another_limit(sqlite_database: Database) -> None:
    """The longest answer alone keeps the prices that count, with their hours and steps."""
    prices.add(sqlite_database, [LISTED, _but(LISTED, hours=NIGHT, rates=Rates(prompt=1))])

    added = ask(sqlite_database, "x-ai/grok-4", max_output_tokens=256_000)

    assert [(price.hours, price.rates.prompt) for price in added] == [(None, 3_000_000), (NIGHT, 1)]
    assert {(price.model, price.catalog, price.max_output_tokens) for price in added} == {
        ("x-ai/grok-4", "", 256_000)
    }
    assert added[0].long_context == LISTED.long_context
    assert added[0].note == "prices of genai-prices 0.2.3"


def test_a_limit_without_a_price(sqlite_database: Database) -> None:
    """The longest answer of a model without a price is refused, since there is nothing to keep."""
    with pytest.raises(AmountError, match="has no price that could be kept"):
        ask(sqlite_database, "m", max_output_tokens=5)

    assert prices.load(sqlite_database) == []


def test_what_is_refused_changes_nothing(sqlite_database: Database) -> None:
    """A price with a fault leaves the book as it is."""
    with pytest.raises(AmountError, match="negative"):
        ask(sqlite_database, "m", completion_usd_per_mtok="-1")

    assert prices.load(sqlite_database) == []


def test_the_audit_log_tells(sqlite_database: Database) -> None:
    """Who set which price is in the audit log."""
    (added,) = ask(sqlite_database, "m")

    (entry,) = audit.page(sqlite_database, limit=9)
    assert (entry.actor, entry.action, entry.target) == ("somebody", "price.add", "m")
    assert entry.details == {"ids": [added.id, added.id], "sources": ["set"]}


def test_listing(sqlite_database: Database) -> None:
    """What was set is listed."""
    (added,) = ask(sqlite_database, "m")

    assert list_prices(sqlite_database, {}, Asked(None, clock.now())).prices == (added,)


def _but(price: Price, **changes: object) -> Price:
    values = {name: getattr(price, name) for name in Price.__struct_fields__}
    return Price(**values | changes)
