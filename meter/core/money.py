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
# A picodollar a token is this much for a million of them: what prices are published by.
PICODOLLARS_PER_USD_PER_MTOK = PICODOLLARS_PER_USD // 1_000_000
# Beyond any published price a hundredfold: whoever writes more has mistaken the unit.
USD_PER_MTOK_MAX = 100_000
USD_PER_REQUEST_MAX = 1_000


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


def parse_usd_per_mtok(text: str) -> int:
    """Read a price in USD per million tokens; returns picodollars a token."""
    try:
        amount = parse_usd(text)
    except ValueError:
        raise ValueError(_unreadable(text, "per million tokens")) from None
    rate, finer = divmod(amount, PICODOLLARS_PER_USD_PER_MTOK)
    if finer:
        raise ValueError(f"{text!r} is finer than 0.000001 USD per million tokens")
    return _within(rate, text, USD_PER_MTOK_MAX * PICODOLLARS_PER_USD_PER_MTOK, "per million tokens")


def parse_usd_per_request(text: str) -> int:
    """Read a fee in USD per request; returns picodollars."""
    try:
        amount = parse_usd(text)
    except ValueError:
        raise ValueError(_unreadable(text, "per request")) from None
    return _within(amount, text, USD_PER_REQUEST_MAX * PICODOLLARS_PER_USD, "per request")


def format_usd_per_mtok(rate: int) -> str:
    """Write picodollars a token as a decimal string in USD per million tokens, at least two decimals."""
    return _at_least_cents(format_usd(Picodollars(rate * PICODOLLARS_PER_USD_PER_MTOK)))


def format_usd_per_request(fee: int) -> str:
    """Write picodollars a request as an exact decimal string in USD, at least two decimals."""
    return _at_least_cents(format_usd(Picodollars(fee)))


def _at_least_cents(text: str) -> str:
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def _unreadable(text: str, unit: str) -> str:
    return f"{text!r} is no amount in USD {unit}: write a decimal number such as 2.50"


def _within(amount: int, text: str, amount_max: int, unit: str) -> int:
    if amount < 0:
        raise ValueError(f"{text!r} is negative: a price is 0 (free) or more USD {unit}")
    if amount > amount_max:
        raise ValueError(f"{text!r} is more USD {unit} than anything costs: is the unit another one?")
    return amount
