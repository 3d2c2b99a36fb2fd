"""Spend as rows of FOCUS 1.4, the FinOps Open Cost and Usage Specification (https://focus.finops.org).

A row is one day in UTC, key, served model, meter and unit price. Days, because bills come by day and hours
would be 24 times as many rows; UTC, because billing periods are. What a row costs is its unit price times its
quantity, exactly. What has no price, and what corrects a closed month, has neither unit price nor quantity.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from meter.core.cells import as_text
from meter.core.money import Picodollars, format_usd
from meter.core.prices import REQUEST, Price, Rates
from meter.core.reports import Question
from meter.core.spans import floor

VERSION = "1.4"
MANDATORY = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
)
CONDITIONAL = (
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
)
# Of a group of rows of the same requests, the first alone has the counts and what the upstream said.
COUNTED_ONCE = (
    "x_RequestCount",
    "x_PromptTokens",
    "x_CompletionTokens",
    "x_CachedTokens",
    "x_ReasoningTokens",
    "x_UnpricedRequestCount",
    "x_UpstreamCost",
)
CUSTOM = ("x_ApiKeyId", "x_ApiKeyName", "x_Model", "x_CostSource", *COUNTED_ONCE)
COLUMNS = (*MANDATORY, *CONDITIONAL, *CUSTOM)

METERS = {
    "prompt": "Input Tokens",
    "cached": "Cached Input Tokens",
    "cache_write": "Cache Write Tokens",
    "cache_write_1h": "Cache Write Tokens (1 Hour)",
    "input_audio": "Input Audio Tokens",
    "completion": "Output Tokens",
    "output_audio": "Output Audio Tokens",
    REQUEST: "Requests",
}
_NUMBERS = frozenset(
    {"BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingQuantity", "ConsumedQuantity"}
    | {"ContractedUnitPrice", "ListUnitPrice", *COUNTED_ONCE}
)
_MILLION = 10**6
_DAY = timedelta(days=1)


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of some requests of one day that have all of this in common."""

    day: date
    """When they started."""
    counted: datetime
    """The day on which reports count them, which is later for what belongs to a closed month."""
    late: bool
    """Whether they belong to a closed month."""
    team_id: str
    team: str
    key_id: str
    key: str
    upstream: str
    model: str
    service_tier: str
    price: Price | None
    above_tokens: int
    """The long context that their prompts are in; 0 is none."""
    correction: bool
    priced: bool
    cost: int
    upstream_cost: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    unpriced_requests: int
    quantities: dict[str, int]
    """Tokens by the kinds of `meter.core.prices`."""


def check(question: Question) -> None:
    """Refuse what cannot be exported; raises `ValueError`."""
    if question.tz.utcoffset(None) != timedelta(0):
        raise ValueError("FOCUS exports are in UTC, as billing periods are: leave 'tz' out")
    for name, bound in (("since", question.since), ("until", question.until)):
        if name == "until" and question.to_date:
            continue
        if bound != floor(bound, "day"):
            raise ValueError(f"FOCUS exports are of whole days in UTC: give '{name}' as a date")


def rows(charge: Charge) -> Iterator[dict[str, str]]:
    """Yield the rows of a charge: one for each unit price that it was made at."""
    once = _once(charge)
    for row in _rows(charge):
        yield {name: row[name] for name in MANDATORY + CONDITIONAL} | _own(charge) | once
        once = dict.fromkeys(COUNTED_ONCE, "0")


def cells(row: dict[str, str]) -> list[str]:
    """Return a row for a CSV file; numbers are numbers, and no text is a formula."""
    return [row[name] if name in _NUMBERS else as_text(row[name]) for name in COLUMNS]


def _rows(charge: Charge) -> Iterator[dict[str, str]]:
    left = charge.cost
    rates = None
    if charge.price is not None and charge.priced and not charge.correction:
        rates = charge.price.rates_for(charge.above_tokens + 1 if charge.above_tokens else 0)
    for kind, quantity, rate in _items(charge, rates):
        left -= quantity * rate
        yield _row(charge, quantity * rate) | _unit(charge, kind, quantity, rate)
    # What is no product of a price: corrections, and what has none.
    if rates is None or left or not any(_items(charge, rates)):
        yield _row(charge, left)


def _items(charge: Charge, rates: Rates | None) -> Iterator[tuple[str, int, int]]:
    if rates is None:
        return
    for kind, quantity in charge.quantities.items():
        rate = rates.of(kind)
        if quantity and rate is not None:
            yield kind, quantity, rate
    if rates.request and charge.requests:
        yield REQUEST, charge.requests, rates.request


def _row(charge: Charge, amount: int) -> dict[str, str]:
    """Make a row without a unit price."""
    cost = _usd(amount)
    month = floor(charge.counted, "month")
    day = datetime(charge.day.year, charge.day.month, charge.day.day, tzinfo=UTC)
    return dict.fromkeys(MANDATORY + CONDITIONAL, "") | {
        "BilledCost": cost,
        "BillingAccountId": charge.upstream,
        "BillingAccountName": charge.upstream,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _time(floor(month + 32 * _DAY, "month")),
        "BillingPeriodStart": _time(month),
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if charge.late else "",
        "ChargeDescription": f"{charge.model} {_what(charge)}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(day + _DAY),
        "ChargePeriodStart": _time(day),
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "HostProviderName": charge.upstream,
        "InvoiceIssuerName": charge.upstream,
        "ListCost": cost,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{charge.upstream} language models",
        "ServiceProviderName": charge.upstream,
        "ServiceSubcategory": "Generative AI",
        "SkuId": charge.model,
        "SubAccountId": charge.team_id,
        "SubAccountName": charge.team,
    }


def _unit(charge: Charge, kind: str, quantity: int, rate: int) -> dict[str, str]:
    """Say what a row's cost is the product of."""
    a_request = kind == REQUEST
    unit_price = _usd(rate) if a_request else _usd(rate * _MILLION)
    details = {"x_ServiceTier": charge.service_tier} if charge.service_tier else {}
    details |= {"x_ContextTier": f">{charge.above_tokens}"} if charge.above_tokens else {}
    price_id = f"{0 if charge.price is None else charge.price.id}/{kind}"
    return {
        "ChargeDescription": f"{charge.model} {METERS[kind].lower()}",
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": "Requests" if a_request else "Tokens",
        "ContractedUnitPrice": unit_price,
        "ListUnitPrice": unit_price,
        "PricingCategory": "Standard",
        "PricingQuantity": str(quantity) if a_request else _millions(quantity),
        "PricingUnit": "Requests" if a_request else "1000000 Tokens",
        "SkuMeter": METERS[kind],
        "SkuPriceDetails": json.dumps(details) if details else "",
        "SkuPriceId": f"{price_id}/{charge.above_tokens}" if charge.above_tokens else price_id,
    }


def _own(charge: Charge) -> dict[str, str]:
    return {
        "x_ApiKeyId": charge.key_id,
        "x_ApiKeyName": charge.key,
        "x_Model": charge.model,
        "x_CostSource": _source(charge),
    }


def _source(charge: Charge) -> str:
    if charge.correction:
        return "correction"
    return "price_book" if charge.priced else "unpriced"


def _what(charge: Charge) -> str:
    return {"correction": "correction", "price_book": "usage", "unpriced": "usage without a price"}[
        _source(charge)
    ]


def _once(charge: Charge) -> dict[str, str]:
    return {
        "x_RequestCount": str(charge.requests),
        "x_PromptTokens": str(charge.prompt_tokens),
        "x_CompletionTokens": str(charge.completion_tokens),
        "x_CachedTokens": str(charge.cached_tokens),
        "x_ReasoningTokens": str(charge.reasoning_tokens),
        "x_UnpricedRequestCount": str(charge.unpriced_requests),
        "x_UpstreamCost": _usd(charge.upstream_cost),
    }


def _usd(amount: int) -> str:
    return format_usd(Picodollars(amount))


def _millions(quantity: int) -> str:
    return f"{Decimal(quantity).scaleb(-6):f}"


def _time(instant: Any) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
