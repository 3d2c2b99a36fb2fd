"""What calls cost by the providers' published prices, worked out by hand, is what the seeded book says.

`tests/data/expected_prices.csv` has one case a line: what was billed by kind, how the provider writes that in
its usage object, and the published prices that it was worked out with, in USD a million tokens, with the name
of the page. Where the seeded list is known to be wrong, docs/prices.md says so, and there is no case here.
"""

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meter.app.seeding import read_package
from meter.core.attempts import Attempt, Ending, conclude
from meter.core.estimate import count_tokens
from meter.core.events import Outcome, UsageEvent
from meter.core.model_names import CATALOGS
from meter.core.money import parse_usd
from meter.core.prices import TIER_ASSUMED, PriceBook, rate
from meter.core.tap import Tap
from meter.core.usage import normalise, read_usage

DATA = Path(__file__).parent / "data"
CASES = list(csv.DictReader((DATA / "expected_prices.csv").read_text(encoding="utf-8").splitlines()))
RECORDED = [json.loads(line) for line in (DATA / "usage_cases.jsonl").read_text().splitlines()]
WITH_COST = [case for case in RECORDED if case["expected"]["upstream_cost"] is not None]
TOKENS_A_PRICE = 10**6
CASES_MIN = 60
VENDORS = ("claude", "gpt", "gemini", "deepseek", "grok", "mistral", "qwen", "kimi")
KINDS = ("cached", "write", "write_1h", "audio_in", "audio_out", "reasoning")

Counts = dict[str, int]
Usage = dict[str, Any]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Give the book that a new installation has, with an upstream of each list's name at that provider."""
    listed = read_package(datetime(2026, 11, 25, tzinfo=UTC))
    numbered = [msgspec.structs.replace(version, id=number) for number, version in enumerate(listed, 1)]
    return PriceBook(numbered, {catalog: catalog for catalog in CATALOGS})


def openai(counts: Counts) -> Usage:
    """Write a usage as OpenAI and most gateways do."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"],
        "total_tokens": counts["prompt"] + counts["completion"],
        "prompt_tokens_details": {
            "cached_tokens": counts["cached"],
            "cache_write_tokens": counts["write"],
            "audio_tokens": counts["audio_in"],
        },
        "completion_tokens_details": {
            "reasoning_tokens": counts["reasoning"],
            "audio_tokens": counts["audio_out"],
        },
    }


def anthropic(counts: Counts) -> Usage:
    """Write a usage as gateways do that pass Anthropic's members on."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"],
        "total_tokens": counts["prompt"] + counts["completion"],
        "cache_read_input_tokens": counts["cached"],
        "cache_creation_input_tokens": counts["write"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts["write"] - counts["write_1h"],
            "ephemeral_1h_input_tokens": counts["write_1h"],
        },
    }


def deepseek(counts: Counts) -> Usage:
    """Write a usage as DeepSeek does: cache hits and misses."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"],
        "total_tokens": counts["prompt"] + counts["completion"],
        "prompt_cache_hit_tokens": counts["cached"],
        "prompt_cache_miss_tokens": counts["prompt"] - counts["cached"],
        "completion_tokens_details": {"reasoning_tokens": counts["reasoning"]},
    }


def xai(counts: Counts) -> Usage:
    """Write a usage as xAI does: reasoning stands beside the completion."""
    beside = counts["completion"] - counts["reasoning"]
    return openai(counts) | {
        "completion_tokens": beside,
        "total_tokens": counts["prompt"] + counts["completion"],
    }


def exclusive(counts: Counts) -> Usage:
    """Write a usage as Grok's on Azure: cached tokens stand beside the prompt."""
    return openai(counts) | {"prompt_tokens": counts["prompt"] - counts["cached"]}


def gemini(counts: Counts) -> Usage:
    """Write a usage as Gemini's OpenAI-compatible API does: thoughts are in the total alone."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"] - counts["reasoning"],
        "total_tokens": counts["prompt"] + counts["completion"],
    }


def mistral(counts: Counts) -> Usage:
    """Write a usage as Mistral does."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"],
        "total_tokens": counts["prompt"] + counts["completion"],
        "num_cached_tokens": counts["cached"],
    }


def moonshot(counts: Counts) -> Usage:
    """Write a usage as Moonshot does."""
    return {
        "prompt_tokens": counts["prompt"],
        "completion_tokens": counts["completion"],
        "total_tokens": counts["prompt"] + counts["completion"],
        "cached_tokens": counts["cached"],
    }


SHAPES: dict[str, Callable[[Counts], Usage]] = {
    shape.__name__: shape
    for shape in (openai, anthropic, deepseek, xai, exclusive, gemini, mistral, moonshot)
}

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]).replace(" ", "-"))


def started(case: dict[str, str]) -> datetime:
    """Read when a case's request started."""
    return datetime.fromisoformat(case["started_at"]).replace(tzinfo=UTC)


def event_of(case: dict[str, str]) -> UsageEvent:
    """Make the event of a case, from its usage object as it stands on the wire."""
    counts = {name: int(case[name]) for name in ("prompt", "completion", *KINDS)}
    served = case["served"] or None
    usage, _ = normalise(read_usage(SHAPES[case["shape"]](counts)), served or case["requested"])
    attempt = Attempt(
        event_id="019ab1c2-0000-7000-8000-000000000000",
        started_at=started(case),
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream=case["upstream"] or "gateway",
        model=case["requested"],
        stream=False,
        prompt_estimate=0,
    )
    concluded = conclude(attempt, Ending(outcome=Outcome.OK, status=200), None)
    return msgspec.structs.replace(
        concluded,
        usage_source="reported",
        model_served=served,
        service_tier=case["tier"] or None,
        **msgspec.structs.asdict(usage),
    )


def worked_out(arithmetic: str) -> Fraction:
    """Add up `tokens x price + ...`, in USD."""
    assert re.fullmatch(r"\d+ x [\d.]+(?: \+ \d+ x [\d.]+)*", arithmetic)
    products = (product.split(" x ") for product in arithmetic.split(" + "))
    return sum((int(tokens) * Fraction(price) for tokens, price in products), Fraction(0)) / TOKENS_A_PRICE


def test_the_table_covers_what_is_charged() -> None:
    """There are cases of every vendor, kind of token and shape, of tiers, and on both sides of dates."""
    names = [case["case"] for case in CASES]

    assert len(CASES) >= CASES_MIN
    assert len(set(names)) == len(names)
    for vendor in VENDORS:
        assert sum(name.startswith(vendor) for name in names) >= 5
    for kind in KINDS:
        assert any(int(case[kind]) for case in CASES)
    assert {case["shape"] for case in CASES} == set(SHAPES)
    assert {"flex", "priority"} <= {case["tier"] for case in CASES}
    assert sum(case["started_at"].endswith("23:59:59.999") for case in CASES) >= 5


@by_name
def test_the_arithmetic_of_a_case(case: dict[str, str]) -> None:
    """A case's amount is what its published prices come to, without any of meter's code."""
    assert case["source"]
    assert worked_out(case["arithmetic"]) == Fraction(case["expected_usd"])


@by_name
def test_a_case_costs_what_was_published(case: dict[str, str], book: PriceBook) -> None:
    """The seeded book says the same to the last digit, by the server's way from raw usage to cost."""
    rated = rate(event_of(case), book)

    assert rated.cost == parse_usd(case["expected_usd"])
    assert TIER_ASSUMED not in rated.anomalies


# What the providers said that recorded calls cost: in these the seeded book says the same, to the last digit.
AGREEING = {
    "litellm-claude-anthropic-fields",
    "litellm-proxy-nonstream-n2",
    "openrouter-nonstream-byok",
    "openrouter-nonstream-claude-cache-read-and-write",
    "openrouter-stream-comments-usage-on-finish-like-chunk",
    "openrouter-stream-grok4-reasoning-folded",
    "openrouter-stream-kimi-usage-chunk-with-choice",
    "xai-nonstream-tool-call",
    "xai-stream-usage-last",
}
# In these it says something else, in USD, and why. The recordings do not tell when they were made; all of
# them say 2026-09-21, for which the list may still have an older price.
DIFFERING: dict[str, tuple[str | None, str]] = {
    "openrouter-nonstream-gemini-write-overlaps-read": (
        "0.0012424863",
        "The list dates OpenRouter's new cache prices by the day on which it was checked, 2026-10-19.",
    ),
    "openrouter-nonstream-server-tools": (
        "0.0009153",
        "A web search costs 0.007; the list has these tokens' price since 2026-10-20, as the table shows.",
    ),
    "perplexity-nonstream-cost-object": (
        "0.012073",
        "The list has the fee of a high search context, and this was a low one: 0.005.",
    ),
    "openrouter-byok-cost": (None, "The model is made up."),
    "nasty-cost-scientific": (None, "The model is made up."),
}


def test_every_recorded_cost_is_accounted_for() -> None:
    """Each recorded case with a cost is either in agreement or differs for a reason that is written down."""
    assert {case["id"] for case in WITH_COST} == AGREEING | set(DIFFERING)
    assert not AGREEING & set(DIFFERING)


@pytest.mark.parametrize("case", WITH_COST, ids=lambda case: str(case["id"]))
def test_a_recorded_cost(case: dict[str, Any], book: PriceBook) -> None:
    """What a provider said that a call cost is what the book says, or differs exactly as written down."""
    event = recorded_event(case)

    rated = rate(event, book)

    assert event.upstream_cost is not None
    if case["id"] in AGREEING:
        assert rated.cost == event.upstream_cost
    else:
        usd, _ = DIFFERING[case["id"]]
        assert rated.cost == (None if usd is None else parse_usd(usd))
        assert rated.cost != event.upstream_cost


def recorded_event(case: dict[str, Any]) -> UsageEvent:
    """Make the event of a recorded response, as the server does."""
    headers = case["headers"]
    tap = Tap(
        content_type=headers.get("content-type", ""),
        content_encoding="",
        response_cost=headers.get("x-litellm-response-cost"),
        count_tokens=count_tokens,
    )
    tap.feed(case["body"].encode())
    observation = tap.finish()
    upstream = next((name for name in ("openrouter", "perplexity") if name in case["provider"]), "gateway")
    attempt = Attempt(
        event_id="019ab1c2-0000-7000-8000-000000000000",
        started_at=datetime.fromtimestamp(1_790_000_000, UTC),
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="x-ai" if case["provider"] == "xai" else upstream,
        model=(case.get("request") or {}).get("model") or observation.model or "",
        stream=case["stream"],
        prompt_estimate=0,
    )
    return conclude(attempt, Ending(outcome=Outcome.OK, status=200), observation)
