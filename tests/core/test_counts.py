"""Counts as providers send them: what is kept of each, and what is said about it."""

from decimal import Decimal

import pytest

from meter.core.counts import TOKENS_MAX, TOKENS_PLAUSIBLE_MAX, coerced


@pytest.mark.parametrize(
    ("sent", "kept", "odd"),
    [
        (0, 0, None),
        (12, 12, None),
        ("12", 12, "string_tokens"),
        ("007", 7, "string_tokens"),
        ("1e3", None, "invalid_token_type"),
        ("", None, "invalid_token_type"),
        ("9" * 30, None, "token_overflow"),
        (12.0, 12, None),
        (12.5, 13, "non_integer_tokens"),
        (Decimal("11.4"), 11, "non_integer_tokens"),
        (float("nan"), None, "non_finite_tokens"),
        (float("inf"), None, "non_finite_tokens"),
        (-0.5, None, "negative_tokens"),
        (-1, None, "negative_tokens"),
        (TOKENS_MAX + 1, None, "token_overflow"),
        (1e30, None, "token_overflow"),
        (TOKENS_PLAUSIBLE_MAX + 1, TOKENS_PLAUSIBLE_MAX + 1, "implausible_tokens"),
        (True, None, "invalid_token_type"),
        ([1], None, "invalid_token_type"),
        (None, None, "invalid_token_type"),
    ],
)
def test_a_count_is_kept_where_it_is_one(sent: object, kept: int | None, odd: str | None) -> None:
    """Whole numbers that a ledger can hold are kept, in whatever type they come."""
    assert coerced(sent) == (kept, odd)
