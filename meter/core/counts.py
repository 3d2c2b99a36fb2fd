"""A count of tokens as providers send it: a number, at times a text or a fraction, or no count at all."""

from decimal import ROUND_HALF_UP, Decimal

TOKENS_MAX = 2**63 - 1
# More than any context window will hold for years; such a number is kept and pointed out.
TOKENS_PLAUSIBLE_MAX = 1_000_000_000


def coerced(value: object) -> tuple[int | None, str | None]:
    """Return a count as it can be kept, `None` where it cannot, and what was odd about it."""
    if isinstance(value, bool):
        return None, "invalid_token_type"
    if isinstance(value, int):
        return _bounded(value)
    if isinstance(value, str):
        return _coerced_text(value)
    if isinstance(value, Decimal | float):
        return _coerced_number(Decimal(value))
    return None, "invalid_token_type"


def _coerced_text(value: str) -> tuple[int | None, str | None]:
    if not (value.isascii() and value.isdigit()):
        return None, "invalid_token_type"
    digits = value.lstrip("0") or "0"
    if len(digits) > len(str(TOKENS_MAX)):
        return None, "token_overflow"
    count, flag = _bounded(int(digits))
    return count, flag or "string_tokens"


def _coerced_number(value: Decimal) -> tuple[int | None, str | None]:
    if not value.is_finite():
        return None, "non_finite_tokens"
    if value < 0 or value > TOKENS_MAX:
        return None, "negative_tokens" if value < 0 else "token_overflow"
    whole = value.to_integral_value(ROUND_HALF_UP)
    count, flag = _bounded(int(whole))
    return count, flag or (None if whole == value else "non_integer_tokens")


def _bounded(count: int) -> tuple[int | None, str | None]:
    if count < 0:
        return None, "negative_tokens"
    if count > TOKENS_MAX:
        return None, "token_overflow"
    return count, "implausible_tokens" if count > TOKENS_PLAUSIBLE_MAX else None
