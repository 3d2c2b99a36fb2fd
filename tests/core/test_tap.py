"""The tap reads every recorded response the same, whole or in any pieces, and survives everything else."""

import gzip
import json
import random
import tracemalloc
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter.core.estimate import count_tokens
from meter.core.tap import Observation, Tap, UpstreamError
from meter.core.usage import TokenUsage, normalise

DATA = Path(__file__).parents[1] / "data" / "usage_cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text().splitlines()]
SSE = "text/event-stream"
JSON = "application/json"

# A parser that does not recurse may read these; and brotli is not in the standard library.
EITHER = {"nasty-deep-nesting"}
UNREADABLE = {"nasty-br-body"}
READABLE = [case for case in CASES if case["id"] not in UNREADABLE | EITHER]

by_id = pytest.mark.parametrize("case", READABLE, ids=lambda case: str(case["id"]))


def observe(data: bytes, content_type: str = SSE, *, pieces: int = 0, **options: Any) -> Observation:
    """Feed a tap, in pieces of a size or whole, and return what it observed."""
    options.setdefault("count_tokens", count_tokens)
    tap = Tap(content_type=content_type, **options)
    size = pieces or len(data) or 1
    for start in range(0, len(data), size):
        tap.feed(data[start : start + size])
    return tap.finish()


def wire(case: dict[str, Any]) -> bytes:
    """Return the bytes as they stood on the wire; the cases keep bodies decoded."""
    body = str(case["body"]).encode("utf-8", "surrogatepass")
    return gzip.compress(body) if case["headers"].get("content-encoding") == "gzip" else body


def tap_for(case: dict[str, Any]) -> Tap:
    """Make the tap that the response headers of a case ask for."""
    headers = case["headers"]
    return Tap(
        content_type=headers.get("content-type", ""),
        content_encoding=headers.get("content-encoding", ""),
        response_cost=headers.get("x-litellm-response-cost"),
        count_tokens=count_tokens,
    )


def facts(observation: Observation) -> dict[str, Any]:
    """Write an observation in the terms of the cases."""
    reported = observation.reported
    reasons = observation.finish_reasons
    counts = msgspec.structs.asdict(reported) if reported else {}
    counts.pop("anomalies", None)
    counts.pop("cache_write_1h_tokens", None)
    places = {True: "choices[].usage", False: "usage"}
    return counts | {
        "usage_present": reported is not None,
        "upstream_cost": observation.upstream_cost,
        "upstream_cost_source": observation.upstream_cost_source,
        "model": observation.model,
        "finish_reason": reasons[0] if reasons else None,
        "finish_reasons": list(reasons) if len(reasons) > 1 else None,
        "service_tier": observation.service_tier,
        "system_fingerprint": observation.system_fingerprint,
        "response_id": observation.upstream_id,
        "usage_source": places[observation.choice_usage] if reported else None,
        "usage_chunks": observation.usage_chunks,
        "stream_done": observation.done,
        "sse_comments": observation.comments,
        "unparseable_events": observation.unparseable_events,
        "error": observation.error and msgspec.structs.asdict(observation.error),
        "norm": reported and norm(observation),
        "anomalies": sorted(observation.anomalies),
    }


def norm(observation: Observation) -> dict[str, int]:
    """Write the normalised usage in the terms of the cases."""
    assert observation.reported is not None
    usage, _ = normalise(observation.reported, observation.model)
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "uncached_input_tokens": usage.uncached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def expected_facts(case: dict[str, Any]) -> dict[str, Any]:
    """Read what a case expects, in the types that `facts` gives."""
    expected = dict(case["expected"])
    expected["stream_done"] = bool(expected["stream_done"])
    expected["sse_comments"] = expected["sse_comments"] or 0
    expected["anomalies"] = sorted(expected["anomalies"])
    if expected["error"] is not None:
        # Messages may quote a prompt, so they are not kept.
        expected["error"] = {name: expected["error"][name] for name in ("type", "code")}
    if expected["upstream_cost"] is not None:
        expected["upstream_cost"] = Decimal(expected["upstream_cost"])
    if expected["model"] is not None:
        expected["model"] = expected["model"].replace("\ud800", "\ufffd")
    if not expected["usage_present"]:
        expected = {name: value for name, value in expected.items() if value is not None or name in FACTS}
    return expected


FACTS = frozenset(facts(Observation()))


@by_id
def test_a_recorded_response_is_read_as_expected(case: dict[str, Any]) -> None:
    """Every recorded response yields the counts, strings, costs and anomalies of its case."""
    tap = tap_for(case)

    tap.feed(wire(case))

    assert facts(tap.finish()) == expected_facts(case)
