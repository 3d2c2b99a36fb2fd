"""Every recorded shape of usage, through the whole proxy: the ledger's numbers, and the client's bytes."""

import gzip
import json
import os
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.money import round_usd
from tests import server, wire
from tests.fake_upstream import FakeUpstream, Step, stream
from tests.server import Meter

CASES: dict[str, Any] = {
    case["id"]: case
    for case in map(
        json.loads,
        (Path(__file__).parent.parent / "data" / "usage_cases.jsonl")
        .read_text(encoding="utf-8")
        .splitlines(),
    )
}
# `make cases` runs 200 random splittings of each case; one request more for every one of them takes minutes.
SPLITTINGS = int(os.environ.get("METER_TEST_SPLITTINGS", "2"))
BYTEWISE_BYTES_MAX = 8000


@pytest.fixture(scope="module")
def observing(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter that touches nothing."""
    data_dir = tmp_path_factory.mktemp("cases") / "data"
    with server.running(data_dir, upstream_url=upstream_server.url, stream_usage="observe") as running:
        yield running


def encoded(case: Any) -> bytes:
    """Return the body as it was on the wire; the file holds gzip bodies decoded."""
    body = case["body"].encode("utf-8", "surrogatepass")
    return gzip.compress(body) if case["headers"].get("content-encoding") == "gzip" else body


def splittings(body: bytes, seed: str) -> Iterator[list[bytes]]:
    """Yield ways to cut a body: whole, byte by byte, at random."""
    yield [body] if body else []
    if len(body) <= BYTEWISE_BYTES_MAX:
        yield [body[at : at + 1] for at in range(len(body))]
    for number in range(SPLITTINGS):
        chosen = random.Random(f"{seed}-{number}")
        cuts = sorted(chosen.choices(range(len(body) + 1), k=min(len(body), chosen.randint(1, 30))))
        yield [piece for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if (piece := body[a:b])]


def answer(case: Any, pieces: list[bytes]) -> list[Step]:
    """Answer as the case did, cut into pieces."""
    return stream(*pieces, headers=list(case["headers"].items()), status=f"{case['status']} Case")


@pytest.mark.parametrize("name", CASES)
def test_the_ledger_has_the_expected_numbers(name: str, upstream: FakeUpstream, observing: Meter) -> None:
    """However the body is cut, the event reads as expected, and the client gets the upstream's bytes."""
    case = CASES[name]
    body = encoded(case)
    key = observing.new_key()
    model = (case.get("request") or {}).get("model", "requested-model")
    asked = wire.chat(model=model, stream=case["stream"])

    count = 0
    for pieces in splittings(body, name):
        upstream.answer(answer(case, pieces))
        given = wire.post(observing.url, key, asked)
        assert (given.status, given.body, given.whole) == (case["status"], body, True)
        count += 1

    for event in observing.events(key, count):
        check(case, event)


def check(case: Any, event: UsageEvent) -> None:
    """Compare an event with what the case expects."""
    expected = case["expected"]
    check_outcome(case, event)
    check_numbers(expected, event)
    check_attributes(expected, event)


def check_outcome(case: Any, event: UsageEvent) -> None:
    """Check that the status decides what kind of end it was, and where the numbers come from."""
    succeeded = 200 <= case["status"] < 300
    assert event.outcome is (Outcome.OK if succeeded else Outcome.UPSTREAM_ERROR)
    norm = case["expected"]["norm"]
    if norm is None:
        unreported = UsageSource.ESTIMATED if succeeded else UsageSource.NONE
        assert event.usage_source is unreported
    elif "zero_usage" in case["expected"]["anomalies"]:
        assert event.usage_source is UsageSource.INVALID
    else:
        assert event.usage_source is UsageSource.REPORTED


def check_numbers(expected: Any, event: UsageEvent) -> None:
    """Check that reported numbers are the normalised ones, and estimates are above nothing."""
    norm = expected["norm"]
    if event.usage_source is UsageSource.REPORTED:
        assert event.prompt_tokens == norm["input_tokens"]
        assert event.completion_tokens == norm["output_tokens"]
        assert event.cached_tokens == norm["cache_read_tokens"]
        assert event.cache_write_tokens == norm["cache_write_tokens"]
        assert event.reasoning_tokens == norm["reasoning_tokens"]
        assert isinstance(json.loads(event.usage_raw or ""), dict | list)
    elif event.usage_source is not UsageSource.NONE:
        assert event.prompt_tokens > 0
    cost = expected["upstream_cost"]
    assert event.upstream_cost == (None if cost is None else round_usd(Decimal(cost)))
    assert event.upstream_cost_source == expected["upstream_cost_source"]
    assert set(expected["anomalies"]) == set(event.anomalies)


def check_attributes(expected: Any, event: UsageEvent) -> None:
    """Check that model, id, tier and finish reasons are the last that the response named."""
    model = expected["model"]
    assert event.model_served == (model and model.encode("utf-8", "replace").decode().replace("?", "\ufffd"))
    assert event.upstream_id == expected["response_id"]
    assert event.service_tier == expected["service_tier"]
    reasons = expected["finish_reasons"] or [expected["finish_reason"]]
    assert list(event.finish_reasons) == [reason for reason in reasons if reason is not None]
