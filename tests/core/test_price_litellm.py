"""LiteLLM's prices are read exactly, with their tiers and steps, from our own file of its shape."""

import json
from datetime import UTC, datetime

import pytest

from meter.core.price_changes import UNDATED
from meter.core.price_csv import FileFaults
from meter.core.price_litellm import Reading, read_litellm
from meter.core.prices import LongContext, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FILE = """{
  "sample_spec": {"input_cost_per_token": 0.0, "max_output_tokens": "max output tokens, if known"},
  "everything": {
    "input_cost_per_token": 3e-06, "output_cost_per_token": 0.000015,
    "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06,
    "cache_creation_input_token_cost_above_1hr": 6e-06,
    "input_cost_per_audio_token": 4e-05, "output_cost_per_audio_token": 8e-05,
    "input_cost_per_request": 0.005, "max_output_tokens": 64000, "max_tokens": 1,
    "litellm_provider": "somebody", "mode": "chat", "supports_vision": true
  },
  "tiers": {
    "input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06, "cache_read_input_token_cost": 5e-07,
    "input_cost_per_token_flex": 1e-06, "output_cost_per_token_flex": 4e-06,
    "input_cost_per_token_priority": 3.5e-06, "cache_read_input_token_cost_priority": null
  },
  "steps": {
    "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
    "input_cost_per_token_above_128k_tokens": 2e-06,
    "input_cost_per_token_above_200k_tokens": 2.5e-06, "output_cost_per_token_above_200k_tokens": 1.5e-05,
    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1e-05
  },
  "fine": {"input_cost_per_token": 1.2345678901234e-07, "output_cost_per_token": 1.25e-07},
  "free": {"input_cost_per_token": 0, "output_cost_per_token": 0.0, "max_output_tokens": 0},
  "pictures": {"input_cost_per_pixel": 1e-08},
  "speech": {"output_cost_per_second": 0.0001, "output_cost_per_token": 1e-06}
}"""


@pytest.fixture(scope="module")
def reading() -> Reading:
    """Read the file."""
    return read_litellm(FILE, source="prices.json", now=NOW)


def rates_of(reading: Reading, model: str) -> dict[str, Rates]:
    """Return a model's rates by tier."""
    return {price.service_tier: price.rates for price in reading.versions if price.model == model}


def test_every_kind(reading: Reading) -> None:
    """USD per token become picodollars a token without rounding."""
    (price,) = [price for price in reading.versions if price.model == "everything"]

    assert price.rates == Rates(
        prompt=3_000_000,
        completion=15_000_000,
        cached=300_000,
        cache_write=3_750_000,
        cache_write_1h=6_000_000,
        input_audio=40_000_000,
        output_audio=80_000_000,
        request=5 * 10**9,
    )
    assert (price.catalog, price.effective_from, price.max_output_tokens) == ("", UNDATED, 64_000)
    assert (price.source, price.note) == ("prices.json", "")


def test_tiers(reading: Reading) -> None:
    """A tier has its own prices, and the standard ones for what it does not say."""
    assert rates_of(reading, "tiers") == {
        "": Rates(prompt=2_000_000, completion=8_000_000, cached=500_000),
        "flex": Rates(prompt=1_000_000, completion=4_000_000, cached=500_000),
        "priority": Rates(prompt=3_500_000, completion=8_000_000, cached=500_000),
    }


def test_steps(reading: Reading) -> None:
    """At each step a kind has the price of the last step that names it."""
    (price,) = [price for price in reading.versions if price.model == "steps"]

    assert price.rates == Rates(prompt=1_250_000, completion=10_000_000)
    assert price.long_context == (
        LongContext(above_tokens=128_000, rates=Rates(prompt=2_000_000, completion=10_000_000)),
        LongContext(
            above_tokens=200_000,
            rates=Rates(prompt=2_500_000, completion=15_000_000, cache_write_1h=10_000_000),
        ),
    )


def test_what_is_finer_is_rounded_and_said(reading: Reading) -> None:
    """What is finer than a picodollar a token is rounded half up, and the note says of which kind."""
    (price,) = [price for price in reading.versions if price.model == "fine"]

    assert price.rates == Rates(prompt=123_457, completion=125_000)
    assert price.note == "rounded to a picodollar a token: prompt"


def test_what_is_free_and_what_is_left_out(reading: Reading) -> None:
    """0 is free; what has no price for prompt tokens is left out and counted."""
    assert rates_of(reading, "free") == {"": Rates(prompt=0, completion=0)}
    assert {price.model for price in reading.versions} == {"everything", "tiers", "steps", "fine", "free"}
    assert reading.skipped == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is no JSON"),
        ("[]", "must be an object of models"),
        ("[" * 100_000, "is no JSON"),
        (json.dumps({"m": 3}), "m: must be an object"),
        (
            json.dumps({"m": {"input_cost_per_token": "3e-6"}}),
            "m, input_cost_per_token: must be a number of USD",
        ),
        (json.dumps({"m": {"input_cost_per_token": -1e-6}}), "not -0.000001"),
        (json.dumps({"m": {"input_cost_per_token": 3.0}}), "0 to 0.1"),
        (json.dumps({"m": {"input_cost_per_token": True}}), "not True"),
        ('{"m": {"input_cost_per_token": NaN}}', "not nan"),
        (json.dumps({"m": {"input_cost_per_token": 0, "max_output_tokens": "9"}}), "m, max_output_tokens"),
    ],
)
def test_faults(text: str, fault: str) -> None:
    """What cannot be read is told with the model and the member, a price of another unit too."""
    with pytest.raises(FileFaults, match="nothing was changed") as refusal:
        read_litellm(text, source="prices.json", now=NOW)

    assert fault in "\n".join(refusal.value.faults)
