"""The page of metrics of a running server: what traffic puts there, and what no client can."""

import asyncio
import json
import os
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import fake_upstream, server
from tests.fake_upstream import FakeUpstream
from tests.server import Meter

METRICS_TOKEN = "a-token-that-opens-the-page-of-metrics-alone"
# `make series` makes up 50,000 of each.
MADE_UP = int(os.environ.get("METER_TEST_MADE_UP", "40"))
AT_ONCE = 8
PAGE_BYTES_MAX = 200_000
MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    """Run an upstream for this module's server."""
    with fake_upstream.running() as running:
        yield running


@pytest.fixture(scope="module")
def counting(provider: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a server with a token for metrics, whose counters nobody else moves."""
    data_dir = tmp_path_factory.mktemp("counting") / "data"
    settings = {"upstream_url": provider.url, "upstream_api_key": "sk", "metrics_token": METRICS_TOKEN}
    with server.running(data_dir, **settings) as running:
        yield running


def scrape(meter: Meter) -> str:
    """Return the page, as Prometheus gets it."""
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    answer = httpx.get(
        f"{meter.control_url}/metrics", headers=headers, timeout=server.WAIT_SECONDS_MAX, trust_env=False
    )
    assert answer.status_code == 200
    return answer.text


def series(page: str) -> dict[tuple[str, str], float]:
    """Return the values of all series."""
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    """Return the value of one series."""
    return series(page).get((name, json.dumps(labels, sort_keys=True)), 0.0)


def complete(meter: Meter, key: str, **members: object) -> bytes:
    """Ask for a completion."""
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "m", "messages": MESSAGES, **members}
    answer = httpx.post(
        f"{meter.url}/chat/completions",
        headers=headers,
        json=body,
        timeout=server.WAIT_SECONDS_MAX,
        trust_env=False,
    )
    assert answer.status_code == 200
    return answer.content


def test_the_token_of_the_settings_opens_nothing_else(counting: Meter) -> None:
    """The token of METER_METRICS_TOKEN gets the page, and is not enough for anything else."""
    assert "meter_build_info" in scrape(counting)

    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    for path in ("keys", "reports", "openapi.json"):
        answer = httpx.get(f"{counting.control_url}/api/v1/{path}", headers=headers, trust_env=False)
        assert answer.status_code == 403


def test_times_are_counted(counting: Meter, provider: FakeUpstream) -> None:
    """The first token of streams is timed, and of all attempts what meter added and how long they took."""
    key = counting.new_key()
    gate = fake_upstream.Gate()
    first = fake_upstream.event({"model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    last = fake_upstream.event({"choices": [], "usage": USAGE})
    whole = [fake_upstream.response(json.dumps(COMPLETION).encode())]
    provider.answer(fake_upstream.stream(first, gate, last, fake_upstream.DONE), whole)
    before = scrape(counting)

    gate.open()
    complete(counting, key, stream=True, stream_options={"include_usage": True})
    complete(counting, key)
    counting.events(key, 2)
    after = scrape(counting)

    counted = {
        name: value(after, f"meter_{name}_seconds_count") - value(before, f"meter_{name}_seconds_count")
        for name in ("ttfb", "first_token", "duration", "overhead")
    }
    assert counted == {"ttfb": 2, "first_token": 1, "duration": 2, "overhead": 2}
    assert value(after, "meter_overhead_seconds_sum") > value(before, "meter_overhead_seconds_sum")
    assert value(after, "meter_cpu_seconds_total") > 0
    assert value(after, "meter_resident_memory_bytes") > 1e6
    assert value(after, "meter_database_away") == 0


def test_the_ledgers_figures_are_the_ledgers(counting: Meter, provider: FakeUpstream) -> None:
    """What the gauges say of the ledger is what its report says, within seconds."""
    key = counting.new_key()
    provider.answer([fake_upstream.response(json.dumps(COMPLETION).encode())])
    complete(counting, key)
    counting.events(key)
    total = counting.report("--since", "2020-01-01")["total"]

    page = server.until(
        lambda: (
            page
            if value(page := scrape(counting), "meter_ledger_requests", team="default") == total["requests"]
            else ""
        ),
        "the figures",
    )

    for kind in ("prompt", "completion", "cached", "reasoning"):
        assert value(page, "meter_ledger_tokens", team="default", kind=kind) == total[f"{kind}_tokens"]
    assert value(page, "meter_ledger_unpriced_requests", team="default") == total["unpriced_requests"]
    assert value(page, "meter_ledger_estimated_requests", team="default") == total["estimated_requests"]
    assert value(page, "meter_ledger_cost_usd", team="default") == float(total["cost_usd"] or 0)


def test_nothing_that_clients_make_up_makes_series(counting: Meter, provider: FakeUpstream) -> None:
    """However many models, paths and users clients make up, there are no more series than before."""
    key = counting.new_key()
    unknown = json.dumps({"error": {"message": "no such model", "code": "model_not_found"}}).encode()
    whole = fake_upstream.response(json.dumps(COMPLETION).encode())
    refusal = fake_upstream.response(unknown, status="404 Not Found")
    provider.answer(lambda request: [whole if request.json()["model"] == "m" else refusal])

    async def make_up(numbers: range) -> None:
        headers = {"authorization": f"Bearer {key}"}
        timeout = server.WAIT_SECONDS_MAX
        async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as client:
            for number in numbers:
                body = {"messages": MESSAGES, "model": f"made-up-{number}"}
                answer = await client.post(f"{counting.url}/chat/completions", json=body)
                assert answer.status_code == 404
                body = {"messages": MESSAGES, "model": "m", "user": f"made-up-{number}"}
                answer = await client.post(
                    f"{counting.url}/chat/completions",
                    json=body,
                    headers={"x-meter-tags": f"made-up-{number}"},
                )
                assert answer.status_code == 200
                answer = await client.get(f"{counting.url}/made-up-{number}")
                assert answer.status_code == 404
                provider.received.clear()

    async def make_all_up(count: int) -> None:
        await asyncio.gather(*(make_up(range(at, count, AT_ONCE)) for at in range(AT_ONCE)))

    asyncio.run(make_all_up(1))
    settled = 2
    server.until(
        lambda: value(scrape(counting), "meter_ledger_requests", team="default") >= settled, "the first ones"
    )
    before = series(scrape(counting))
    asyncio.run(make_all_up(MADE_UP))

    page = scrape(counting)
    assert series(page).keys() == before.keys()
    assert len(page) < PAGE_BYTES_MAX
    labels = {"team": "default", "model": "other", "outcome": "upstream_error"}
    assert value(page, "meter_requests_total", **labels) == MADE_UP + 1
    assert value(page, "meter_refusals_total", reason="not_found") == MADE_UP + 1
    assert "made-up" not in page
