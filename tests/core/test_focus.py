"""Rows of FOCUS: what they cost is a price times a quantity, or they have neither."""

from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest

from meter.core import focus
from meter.core.focus import COLUMNS, Charge, cells, check, rows
from meter.core.prices import Price, Rates
from meter.core.reports import Question

DAY = datetime(2026, 11, 2, tzinfo=UTC)
PRICE = Price(
    id=7,
    catalog="",
    model="m",
    effective_from=DAY,
    rates=Rates(prompt=3_000_000, cached=300_000, completion=15_000_000),
    source="test",
    created_at=DAY,
)
CHARGE = Charge(
    day=date(2026, 11, 2),
    counted=DAY,
    late=False,
    team_id="t",
    team="=team",
    key_id="k",
    key="-key",
    upstream="routerhub",
    model="m",
    service_tier="",
    price=PRICE,
    above_tokens=0,
    correction=False,
    priced=True,
    cost=3_000_000 * 10 + 300_000 * 5 + 15_000_000 * 2,
    upstream_cost=1,
    requests=2,
    prompt_tokens=15,
    completion_tokens=2,
    cached_tokens=5,
    reasoning_tokens=1,
    unpriced_requests=0,
    quantities={"prompt": 10, "cached": 5, "completion": 2},
)


def test_a_row_for_each_unit_price() -> None:
    """Each meter is a row; what belongs to the requests as a whole stands in the first one alone."""
    found = list(rows(CHARGE))

    assert [row["SkuMeter"] for row in found] == ["Input Tokens", "Cached Input Tokens", "Output Tokens"]
    assert [row["ListUnitPrice"] for row in found] == ["3.000000", "0.300000", "15.000000"]
    assert [row["PricingQuantity"] for row in found] == ["0.000010", "0.000005", "0.000002"]
    assert [row["x_RequestCount"] for row in found] == ["2", "0", "0"]
    assert [row["x_PromptTokens"] for row in found] == ["15", "0", "0"]
    for row in found:
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
        assert row["BilledCost"] == row["EffectiveCost"] == row["ContractedCost"] == row["ListCost"]
        assert row["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
        assert row["BillingPeriodEnd"] == "2026-12-01T00:00:00Z"
        assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
            "2026-11-02T00:00:00Z",
            "2026-11-03T00:00:00Z",
        )


@pytest.mark.parametrize(
    ("changes", "cost", "source"),
    [
        ({"priced": False, "price": None, "cost": 0, "unpriced_requests": 2}, "0.000000", "unpriced"),
        ({"correction": True, "cost": -5, "quantities": {}}, "-0.000000000005", "correction"),
        ({"price": None}, "0.0000615", "price_book"),
    ],
)
def test_what_is_no_product_has_no_unit_price(changes: dict[str, object], cost: str, source: str) -> None:
    """What has no price, corrects another, or has a price that nobody knows, is one row without one."""
    (row,) = rows(msgspec.structs.replace(CHARGE, **changes))

    assert (row["ListCost"], row["x_CostSource"]) == (cost, source)
    assert not row["SkuPriceId"] + row["PricingQuantity"] + row["PricingUnit"] + row["PricingCategory"]


def test_a_cost_that_is_no_product_is_kept() -> None:
    """What a charge costs beyond its prices stands in a row of its own, so that rows add up."""
    found = list(rows(msgspec.structs.replace(CHARGE, cost=CHARGE.cost + 9)))

    assert found[-1]["ListCost"] == "0.000000000009"
    assert not found[-1]["SkuPriceId"]


def test_every_column_is_there_once() -> None:
    """A row has the columns of the specification and ours, and no text that a spreadsheet runs."""
    row = next(rows(CHARGE))

    assert len(set(COLUMNS)) == len(COLUMNS) == len(cells(row))
    assert set(row) == set(COLUMNS)
    named = dict(zip(COLUMNS, cells(row), strict=True))
    assert (named["SubAccountName"], named["x_ApiKeyName"]) == ("'=team", "'-key")
    assert sorted(focus.MANDATORY) == list(focus.MANDATORY)


def test_late_charges_are_corrections_of_their_own_day() -> None:
    """What belongs to a closed month is billed in the open one."""
    row = next(rows(msgspec.structs.replace(CHARGE, late=True, day=date(2026, 9, 30))))

    assert row["ChargeClass"] == "Correction"
    assert row["ChargePeriodStart"] == "2026-09-30T00:00:00Z"
    assert row["BillingPeriodStart"] == "2026-11-01T00:00:00Z"


@pytest.mark.parametrize(
    ("since", "until", "to_date", "fault"),
    [
        (DAY, DAY.replace(day=3), False, None),
        (DAY, DAY.replace(day=3, hour=5), True, None),
        (DAY, DAY.replace(day=3, hour=5), False, "until"),
        (DAY.replace(hour=1), DAY.replace(day=3), False, "since"),
    ],
)
def test_exports_are_of_whole_days(
    since: datetime, until: datetime, *, to_date: bool, fault: str | None
) -> None:
    """Bounds that are given are days in UTC; today is exported so far as it goes."""
    asked = Question(by=(), since=since, until=until, tz=UTC, to_date=to_date)

    if fault is None:
        check(asked)
    else:
        with pytest.raises(ValueError, match=fault):
            check(asked)
