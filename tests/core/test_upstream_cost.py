"""Costs are read from wherever upstreams write them, exactly."""

from decimal import Decimal
from typing import Any

import pytest

from meter.core.upstream_cost import upstream_cost


@pytest.mark.parametrize(
    ("usage", "header", "expected"),
    [
        ({}, None, (None, None)),
        ({"cost": Decimal("0.5")}, "9", (Decimal("0.5"), "usage.cost")),
        ({"cost": 0}, "9", (Decimal(0), "usage.cost")),
        ({"cost": True}, None, (None, None)),
        ({"cost": "0.5"}, None, (None, None)),
        ({"cost": Decimal("-0.5")}, None, (None, None)),
        ({"cost": Decimal("NaN")}, None, (None, None)),
        ({"cost": float("inf")}, None, (None, None)),
        ({"cost": Decimal("1E+999999999")}, None, (None, None)),
        ({"cost": Decimal("1E-999999999")}, None, (Decimal(0), "usage.cost")),
        ({"cost": Decimal("0." + "3" * 99)}, None, (Decimal("0." + "3" * 28), "usage.cost")),
        ({"cost": {"total_cost": Decimal("0.005")}}, None, (Decimal("0.005"), "usage.cost.total_cost")),
        ({"cost_in_usd_ticks": 1399000}, None, (Decimal("0.0001399"), "usage.cost_in_usd_ticks/1e10")),
        ({"cost_in_usd_ticks": 2 * 10**10}, None, (Decimal(2), "usage.cost_in_usd_ticks/1e10")),
        ({"cost_in_usd_ticks": 0}, None, (None, None)),
        (
            {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": Decimal("0.1")}},
            None,
            (Decimal("0.1"), "usage.cost+cost_details.upstream_inference_cost"),
        ),
        (
            {"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": None}},
            None,
            (Decimal(1), "usage.cost"),
        ),
        (
            {"cost": 1, "is_byok": "yes", "cost_details": {"upstream_inference_cost": 5}},
            None,
            (Decimal(1), "usage.cost"),
        ),
        ({}, " 7.1E-05 ", (Decimal("0.000071"), "header x-litellm-response-cost")),
        ({}, "sNaN", (None, None)),
        ({}, "free", (None, None)),
        (
            {"pydantic_ai_gateway": {"cost_estimate": Decimal("0.2")}},
            None,
            (Decimal("0.2"), "usage.pydantic_ai_gateway.cost_estimate"),
        ),
    ],
)
def test_upstream_costs_are_read_from_where_they_stand(
    usage: dict[str, Any], header: str | None, expected: tuple[Decimal | None, str | None]
) -> None:
    """A finite amount of at least 0 counts, with its place as the source; strings and guesses do not."""
    assert upstream_cost(usage, header) == expected
