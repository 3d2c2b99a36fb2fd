"""What upstreams say themselves that a call costs, wherever they say it."""

from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation

# A larger cost of one call is a fault.
USD_MAX = 10**4
_COST_DIGITS = 28
_TICK_DIGITS = 10

# Without any of these members, a usage says nothing of its cost.
_COST_MEMBERS = frozenset({"cost", "cost_in_usd_ticks", "pydantic_ai_gateway"})


def upstream_cost(
    usage: Mapping[str, object], header: str | None = None
) -> tuple[Decimal | None, str | None]:
    """Read what the upstream says that the call costs; returns USD and where it stands, or two `None`.

    `header` is the value of `x-litellm-response-cost`. Amounts count from 0 to `USD_MAX`.
    """
    if header is None and _COST_MEMBERS.isdisjoint(usage):
        return None, None
    cost, details = usage.get("cost"), usage.get("cost_details")
    # With a key of one's own at OpenRouter, `cost` is its fee and the provider's bill comes on top.
    bill = details.get("upstream_inference_cost") if isinstance(details, dict) else None
    fee, billed = _usd(cost), _usd(bill) if usage.get("is_byok") is True else None
    if fee is not None and billed is not None:
        return fee + billed, "usage.cost+cost_details.upstream_inference_cost"
    places = (
        (fee, "usage.cost"),
        (_usd(_at(usage, ("cost", "total_cost"))), "usage.cost.total_cost"),
        # Zero ticks come from hosts that don't know the cost; xAI itself always charges some.
        (_usd(usage.get("cost_in_usd_ticks"), _TICK_DIGITS) or None, "usage.cost_in_usd_ticks/1e10"),
        (_usd(_number(header)), "header x-litellm-response-cost"),
        (
            _usd(_at(usage, ("pydantic_ai_gateway", "cost_estimate"))),
            "usage.pydantic_ai_gateway.cost_estimate",
        ),
    )
    return next((found for found in places if found[0] is not None), (None, None))


def _at(usage: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = usage
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _usd(value: object, scale: int = 0) -> Decimal | None:
    """Read an amount of 10^-scale USD, to 28 digits; bounded, so that later arithmetic is cheap."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or not 0 <= amount <= USD_MAX * 10**scale:
        return None
    negligible = amount.adjusted() < -_COST_DIGITS
    return Decimal(0) if negligible or not amount else amount.scaleb(-scale, Context(_COST_DIGITS))


def _number(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text.strip())
    except InvalidOperation:
        return None
