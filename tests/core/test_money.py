"""Amounts are whole picodollars: read exactly, written exactly, refused where that cannot be."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.money import PICODOLLARS_PER_USD, Picodollars, format_usd, parse_usd, round_usd

# What a database column holds, and what sums of columns come to.
amounts = st.integers(-(2**63), 2**63 - 1).map(Picodollars)
sums = st.integers(-(2**80), 2**80).map(Picodollars)


@pytest.mark.parametrize(
    ("text", "picodollars"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.000000000001", 1),
        ("-0.000000000001", -1),
        ("0.0000000000010", 1),
        ("3", 3 * 10**12),
        ("0.30", 3 * 10**11),
        (".5", 5 * 10**11),
        ("1e-6", 10**6),
        ("1.5E3", 1500 * 10**12),
        ("9223372.036854775807", 2**63 - 1),
        ("-9223372.036854775808", -(2**63)),
    ],
)
def test_an_amount_is_read_exactly(text: str, picodollars: int) -> None:
    """A decimal string in USD is that many picodollars, however it is written."""
    assert parse_usd(text) == picodollars


@pytest.mark.parametrize(
    "text", ["", "x", "1,5", "$3", "0x10", "NaN", "sNaN", "Infinity", "-inf", "1e", "--1", "1 000"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """A text that is no finite decimal number is an error that quotes it."""
    with pytest.raises(ValueError, match="not an amount in USD"):
        parse_usd(text)


@pytest.mark.parametrize("text", ["0.0000000000001", "1e-13", "-2.1234567890123"])
def test_finer_than_a_picodollar_is_refused(text: str) -> None:
    """An amount that would have to be rounded is an error."""
    with pytest.raises(ValueError, match="finer than a picodollar"):
        parse_usd(text)


@pytest.mark.parametrize("text", ["1e1000000", "-1e1000000", "9" * 5000])
def test_an_amount_beyond_any_column_is_refused(text: str) -> None:
    """An amount that no database column holds is an error, not a number of a million digits."""
    with pytest.raises(ValueError):  # noqa: PT011 (any refusal will do)
        parse_usd(text)


@pytest.mark.parametrize(
    ("picodollars", "text"),
    [
        (0, "0.000000"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (123_000_000, "0.000123"),
        (120_000_000, "0.000120"),
        (10**12, "1.000000"),
        (1_234_567_890_123, "1.234567890123"),
        (1_234_567_890_000, "1.23456789"),
        (-(2**63), "-9223372.036854775808"),
    ],
)
def test_an_amount_is_written_exactly(picodollars: int, text: str) -> None:
    """At least six decimals are shown, and as many more as it takes."""
    assert format_usd(Picodollars(picodollars)) == text


@given(amounts)
def test_writing_and_reading_is_a_round_trip(amount: Picodollars) -> None:
    """What is written reads as the same amount."""
    assert parse_usd(format_usd(amount)) == amount


@given(sums)
def test_what_is_written_is_the_exact_value(amount: Picodollars) -> None:
    """The decimal string is the same number as the fraction of picodollars by 10^12."""
    assert Fraction(format_usd(amount)) == Fraction(amount, PICODOLLARS_PER_USD)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-9223372, max_value=9223372))
def test_what_is_read_is_the_exact_value(amount: Decimal) -> None:
    """Reading neither rounds nor loses a digit."""
    assert Fraction(parse_usd(str(amount)), PICODOLLARS_PER_USD) == Fraction(amount)


@given(st.lists(amounts, max_size=20))
def test_sums_are_exact(summands: list[Picodollars]) -> None:
    """Adding picodollars up and adding the decimal strings up is the same."""
    total = Picodollars(sum(summands))

    assert Fraction(format_usd(total)) == sum((Fraction(format_usd(each)) for each in summands), Fraction(0))


@pytest.mark.parametrize(
    ("amount", "picodollars"),
    [
        ("0", 0),
        ("0.0000000000004", 0),
        ("0.0000000000005", 1),
        ("0.0000000000014999", 1),
        ("0.0000000000015", 2),
        ("-0.0000000000005", -1),
        ("0.1", 10**11),
        ("1e3", 10**15),
        ("1e-28", 0),
    ],
)
def test_somebody_elses_amount_is_rounded_half_up(amount: str, picodollars: int) -> None:
    """A foreign amount becomes the nearest picodollar; halves go away from zero."""
    assert round_usd(Decimal(amount)) == picodollars


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**9))
def test_rounding_is_off_by_half_a_picodollar_at_most(amount: Decimal) -> None:
    """No amount is further from its rounding than half a picodollar."""
    exact = Fraction(amount) * PICODOLLARS_PER_USD

    assert abs(round_usd(amount) - exact) <= Fraction(1, 2)
