"""The price book keeps every version exactly as it was added."""

from datetime import UTC, datetime

import pytest

from meter.core.prices import Hours, LongContext, Price, Rates
from meter.store import prices
from meter.store.database import Database, RowRefused

PLAIN = Price(
    id=0,
    catalog="",
    model="model",
    effective_from=datetime(2026, 11, 1, tzinfo=UTC),
    rates=Rates(prompt=3_000_000, completion=0),
    source="set",
    created_at=datetime(2026, 11, 2, 3, 4, 5, 678901, tzinfo=UTC),
)
FULL = Price(
    id=0,
    catalog="deepseek",
    upstream="gateway",
    model="deepseek-v4-flash",
    service_tier="flex",
    effective_from=datetime(2026, 9, 10, tzinfo=UTC),
    hours=Hours(start_minute=60, end_minute=240),
    rates=Rates(
        prompt=1,
        cached=2,
        cache_write=3,
        cache_write_1h=4,
        input_audio=5,
        completion=6,
        output_audio=7,
        request=8,
    ),
    long_context=(LongContext(above_tokens=200_000, rates=Rates(prompt=2**53 + 1)),),
    max_output_tokens=64_000,
    source="genai-prices 0.2.3",
    created_at=datetime(2026, 11, 2, tzinfo=UTC),
    created_by="somebody",
    note="☃",
)


def test_versions_come_back(database: Database) -> None:
    """What was added comes back in order, numbered, and with every digit."""
    added = prices.add(database, [FULL, PLAIN])

    found = prices.load(database)

    assert added == found
    assert [price.id for price in found] == sorted({price.id for price in found})
    assert [_unnumbered(price) for price in found] == [_unnumbered(FULL), _unnumbered(PLAIN)]


def test_a_change_of_the_book_is_noticed(database: Database) -> None:
    """The number of the last version grows with every addition."""
    numbers = [prices.latest_id(database)]
    for _ in range(2):
        prices.add(database, [PLAIN])
        numbers.append(prices.latest_id(database))

    assert numbers[0] == 0
    assert numbers[0] < numbers[1] < numbers[2]
    assert numbers[2] == prices.load(database)[-1].id


def test_all_or_none(database: Database) -> None:
    """Of versions that are added together none is there if one is refused."""
    naive = PLAIN.effective_from.replace(tzinfo=None)

    with pytest.raises(RowRefused):
        prices.add(database, [PLAIN, _with(PLAIN, effective_from=naive)])

    assert prices.load(database) == []


def _with(price: Price, **changes: object) -> Price:
    values = {name: getattr(price, name) for name in Price.__struct_fields__}
    return Price(**values | changes)


def _unnumbered(price: Price) -> Price:
    return _with(price, id=0)
