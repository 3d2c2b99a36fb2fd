"""Prices are read from decimal strings and written as such, exactly and with the unit in their names."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.money import format_usd_per_mtok, parse_usd_per_mtok
from meter.core.price_amounts import AmountError, LongContextAmounts, NewPrice, price_of, shown
from meter.core.prices import Hours, LongContext, Price, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def make(**fields: Any) -> Price:
    """Make a version as somebody asks for it."""
    asked = NewPrice(**{"model": "m", "prompt_usd_per_mtok": "3"} | fields)
    return price_of(asked, effective_from=NOW, source="set", created_at=NOW)


@pytest.mark.parametrize(
    ("text", "rate", "written"),
    [
        ("3", 3_000_000, "3.00"),
        ("0.3", 300_000, "0.30"),
        ("0.000001", 1, "0.000001"),
        ("0", 0, "0.00"),
        ("1e1", 10_000_000, "10.00"),
        ("2.500000000", 2_500_000, "2.50"),
        ("100000", 10**11, "100000.00"),
    ],
)
def test_amounts(text: str, rate: int, written: str) -> None:
    """USD per million tokens become picodollars a token without rounding, and back."""
    price = make(prompt_usd_per_mtok=text)

    assert price.rates.prompt == rate
    assert shown(price).prompt_usd_per_mtok == written


@given(st.integers(min_value=0, max_value=10**11))
def test_there_and_back(rate: int) -> None:
    """Every rate is read back from what it is written as."""
    assert parse_usd_per_mtok(format_usd_per_mtok(rate)) == rate


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("prompt_usd_per_mtok", "-1", "negative"),
        ("prompt_usd_per_mtok", "", "no amount"),
        ("prompt_usd_per_mtok", "3,5", "no amount"),
        ("prompt_usd_per_mtok", "free", "no amount"),
        ("prompt_usd_per_mtok", "NaN", "no amount"),
        ("prompt_usd_per_mtok", "Infinity", "no amount"),
        ("prompt_usd_per_mtok", "0.0000001", "finer than 0.000001 USD per million tokens"),
        ("prompt_usd_per_mtok", "1e-300", "no amount"),
        ("prompt_usd_per_mtok", "1e300", "no amount"),
        ("completion_usd_per_mtok", "100000.000001", "unit another one"),
        ("request_usd", "-0.01", "negative"),
        ("request_usd", "1001", "unit another one"),
        ("request_usd", "x", "USD per request"),
        ("prompt_usd_per_mtok", None, "is missing"),
        ("model", "", "is missing"),
        ("model", "anthropic/*", "pattern"),
        ("model", " m", "printable"),
        ("model", "m" * 257, "256"),
        ("service_tier", "t" * 65, "64"),
        ("upstream", "a\nb", "printable"),
        ("max_output_tokens", 0, "number of tokens"),
        ("effective_from", NOW.replace(tzinfo=None), "offset from UTC"),
    ],
)
def test_what_cannot_be_used(field: str, text: object, reason: str) -> None:
    """A price that cannot be used is refused with the name of its field and a reason."""
    with pytest.raises(AmountError, match=reason) as refusal:
        make(**{field: text})

    assert refusal.value.field == field


def test_a_whole_price() -> None:
    """Every field arrives where it belongs."""
    price = make(
        upstream="gateway",
        service_tier="flex",
        cached_usd_per_mtok="0.3",
        cache_write_usd_per_mtok="3.75",
        cache_write_1h_usd_per_mtok="6",
        input_audio_usd_per_mtok="40",
        completion_usd_per_mtok="15",
        output_audio_usd_per_mtok="80",
        request_usd="0.005",
        max_output_tokens=64_000,
        note="as agreed",
    )

    assert price == Price(
        id=0,
        catalog="",
        upstream="gateway",
        model="m",
        service_tier="flex",
        effective_from=NOW,
        rates=Rates(
            prompt=3_000_000,
            cached=300_000,
            cache_write=3_750_000,
            cache_write_1h=6_000_000,
            input_audio=40_000_000,
            completion=15_000_000,
            output_audio=80_000_000,
            request=5_000_000_000,
        ),
        max_output_tokens=64_000,
        source="set",
        created_at=NOW,
        note="as agreed",
    )
    assert shown(price).request_usd == "0.005"


def test_the_standard_tier_has_one_name() -> None:
    """What providers call their standard tier is the tier without a name."""
    assert make(service_tier="default").service_tier == ""


def test_long_contexts_take_what_is_not_given_from_below() -> None:
    """A kind without a price of its own above a length costs what it costs below."""
    price = make(
        cached_usd_per_mtok="0.3",
        completion_usd_per_mtok="15",
        long_context=(
            LongContextAmounts(above_tokens=500_000, completion_usd_per_mtok="30"),
            LongContextAmounts(above_tokens=200_000, prompt_usd_per_mtok="6"),
        ),
    )

    assert price.long_context == (
        LongContext(
            above_tokens=200_000, rates=Rates(prompt=6_000_000, cached=300_000, completion=15_000_000)
        ),
        LongContext(
            above_tokens=500_000, rates=Rates(prompt=6_000_000, cached=300_000, completion=30_000_000)
        ),
    )
    assert shown(price).long_context[1].completion_usd_per_mtok == "30.00"


@pytest.mark.parametrize("above", [0, -1])
def test_a_length_that_is_none(above: int) -> None:
    """A step at no tokens is refused."""
    with pytest.raises(AmountError, match="above_tokens"):
        make(long_context=(LongContextAmounts(above_tokens=above, prompt_usd_per_mtok="6"),))


def test_the_same_length_twice() -> None:
    """Two steps at one length are refused."""
    step = LongContextAmounts(above_tokens=9, prompt_usd_per_mtok="6")
    with pytest.raises(AmountError, match="twice"):
        make(long_context=(step, step))


def test_hours_and_what_has_no_price() -> None:
    """Hours are shown on a clock, and what has no price as nothing."""
    price = msgspec.structs.replace(make(), hours=Hours(start_minute=60, end_minute=1430))

    seen = shown(price)

    assert seen.hours_utc == "01:00-23:50"
    assert seen.completion_usd_per_mtok is None
    assert seen.request_usd is None


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b'{"model":"m","prompt":"3"}', "unknown field `prompt`"),
        (b'{"model":"m","prompt_usd_per_mtok":3}', "Expected `str | null`"),
        (b'{"prompt_usd_per_mtok":"3"}', "missing required field `model`"),
    ],
)
def test_documents_with_faults(document: bytes, fault: str) -> None:
    """Unknown fields, and numbers where decimal strings belong, are refused by name."""
    with pytest.raises(msgspec.ValidationError, match=fault):
        msgspec.json.decode(document, type=NewPrice)


@pytest.mark.parametrize(
    ("fields", "has"), [({}, False), ({"request_usd": "1"}, True), ({"prompt_usd_per_mtok": "0"}, True)]
)
def test_whether_there_are_amounts(fields: dict[str, Any], has: bool) -> None:
    """An explicit 0 is an amount, and nothing is none."""
    assert NewPrice(model="m", **fields).has_amounts is has
