"""Money as whole picodollars.

One picodollar is 1e-12 USD. One picodollar a token is one microdollar a million tokens, so that every
published price is an integer and a cost is a sum of integer products: no float, no rounding, the same digits
everywhere.
"""

from decimal import Decimal
from typing import NewType

Picodollars = NewType("Picodollars", int)

DIGITS = 12
# Beyond what any column holds; an exponent could otherwise make numbers of a million digits.
DOLLAR_DIGITS_MAX = 30
PICODOLLARS_PER_USD = 10**DIGITS
# Reports show at least cents of a cent, so that columns of small amounts line up.
DIGITS_SHOWN_MIN = 6


def parse_usd(text: str) -> Picodollars:
    """Read a decimal string in USD; finer than a picodollar is an error, not a rounding."""
    try:
        amount = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"not an amount in USD: {text!r}") from None
    if not amount.is_finite() or amount.adjusted() > DOLLAR_DIGITS_MAX:
        raise ValueError(f"not an amount in USD: {text!r}")
    sign, digits, exponent = amount.as_tuple()
    shift = int(exponent) + DIGITS
    whole = int("".join(map(str, digits)))
    if shift < 0 and whole % 10**-shift:
        raise ValueError(f"finer than a picodollar (12 decimals): {text!r}")
    scaled = whole * 10**shift if shift >= 0 else whole // 10**-shift
    return Picodollars(-scaled if sign else scaled)


def round_usd(amount: Decimal) -> Picodollars:
    """Convert somebody else's amount in USD to the nearest picodollar, half up."""
    sign, digits, exponent = amount.as_tuple()
    shift = int(exponent) + DIGITS
    whole = int("".join(map(str, digits)))
    scaled = whole * 10**shift if shift >= 0 else (whole + 10**-shift // 2) // 10**-shift
    return Picodollars(-scaled if sign else scaled)


def format_usd(amount: Picodollars) -> str:
    """Write an amount as an exact decimal string in USD, at least six decimals."""
    sign = "-" if amount < 0 else ""
    dollars, rest = divmod(abs(amount), PICODOLLARS_PER_USD)
    decimals = f"{rest:0{DIGITS}d}"
    shown = decimals[:DIGITS_SHOWN_MIN] + decimals[DIGITS_SHOWN_MIN:].rstrip("0")
    return f"{sign}{dollars}.{shown}"
