"""Prices over HTTP: what is set is in the book, what is asked for is shown, and a server lives by it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from meter.core.prices import BEGINNING, LongContext, Price, Rates
from meter.store import audit, prices
from tests import server
from tests.fake_upstream import FakeUpstream, response
from tests.patience import within
from tests.server import WAIT_SECONDS_MAX, Meter, until
from tests.web.conftest import OWNER_TOKEN, Office

# What is promised, with some room for a loaded machine.
LIVE_WITHIN_SECONDS = 5.5
LISTED = Price(
    id=0,
    catalog="anthropic",
    model="claude-sonnet-4",
    effective_from=BEGINNING,
    rates=Rates(prompt=3_000_000, completion=15_000_000),
    source="genai-prices 0.2.3",
    created_at=BEGINNING,
)


@pytest.fixture
def client(office: Office) -> Iterator[TestClient[Litestar]]:
    """Ask as the owner, of a book with one listed price."""
    prices.add(office.database, [LISTED])
    with office.asking(OWNER_TOKEN) as asking:
        yield asking


def post(client: TestClient[Litestar], **members: Any) -> httpx.Response:
    """Set a price."""
    return client.post("/api/v1/prices", json={"model": "m", "prompt_usd_per_mtok": "1"} | members)


def test_a_price_is_set(client: TestClient[Litestar], office: Office) -> None:
    """Every member arrives in the version, which comes back as it is shown from then on."""
    answer = post(
        client,
        cached_usd_per_mtok="0.1",
        cache_write_usd_per_mtok="1.25",
        cache_write_1h_usd_per_mtok="2",
        input_audio_usd_per_mtok="4",
        completion_usd_per_mtok="5",
        output_audio_usd_per_mtok="8",
        request_usd="0.005",
        service_tier="flex",
        upstream="gateway",
        effective_from="2026-12-01T01:00:00+01:00",
        max_output_tokens=64_000,
        long_context=[{"above_tokens": 200_000, "prompt_usd_per_mtok": "2"}],
        note="as agreed",
    )

    (shown,) = answer.json()["data"]
    found = prices.load(office.database)[-1]
    rates = Rates(
        prompt=1_000_000,
        cached=100_000,
        cache_write=1_250_000,
        cache_write_1h=2_000_000,
        input_audio=4_000_000,
        completion=5_000_000,
        output_audio=8_000_000,
        request=5 * 10**9,
    )
    assert answer.status_code == 201
    assert found.rates == rates
    assert found.long_context[0].rates.prompt == 2_000_000
    assert isinstance(found.long_context[0], LongContext)
    assert found.effective_from == datetime(2026, 12, 1, tzinfo=UTC)
    assert (found.service_tier, found.upstream, found.max_output_tokens) == ("flex", "gateway", 64_000)
    assert (shown["effective_from"], shown["prompt_usd_per_mtok"]) == ("2026-12-01T00:00:00Z", "1.00")
    assert (shown["id"], shown["request_usd"], shown["note"]) == (found.id, "0.005", "as agreed")
    assert shown["long_context"][0]["completion_usd_per_mtok"] == "5.00"
    assert audit.page(office.database, limit=1)[0].action == "price.add"


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"prompt_usd_per_mtok": "-1"}, "prompt_usd_per_mtok", "negative"),
        ({"prompt_usd_per_mtok": 1}, "prompt_usd_per_mtok", "Expected `str | null`"),
        ({"prompt_usd_per_mtok": None}, "prompt_usd_per_mtok", "is missing"),
        ({"completion_usd_per_mtok": "0.0000001"}, "completion_usd_per_mtok", "finer than 0.000001 USD"),
        ({"prompt": "1"}, None, "unknown field `prompt`"),
        ({"model": "a/*"}, "model", "pattern"),
        ({"model": ""}, "model", "is missing"),
        ({"effective_from": "2026-12-01T00:00:00"}, "effective_from", "offset from UTC"),
        ({"effective_from": "tomorrow"}, "effective_from", "offset from UTC"),
        ({"max_output_tokens": 0}, "max_output_tokens", "number of tokens"),
        ({"long_context": [{"above_tokens": 1, "prompt": "1"}]}, None, "unknown field `prompt`"),
    ],
)
def test_what_is_refused(
    client: TestClient[Litestar], office: Office, members: dict[str, Any], param: str | None, message: str
) -> None:
    """What cannot be used is 400 in OpenAI's shape, names the member, and changes nothing."""
    answer = post(client, **members)

    error = answer.json()["error"]
    assert answer.status_code == 400
    assert message in error["message"]
    assert param is None or error["param"] == param
    assert len(prices.load(office.database)) == 1


@pytest.mark.parametrize(
    ("query", "models", "to_come"),
    [
        ({}, ["mine"], 1),
        ({"model": "anthropic/claude-sonnet-4-20250514"}, ["claude-sonnet-4"], 0),
        ({"model": "*"}, ["claude-sonnet-4", "mine"], 1),
        ({"at": "2100-01-01T00:00:00Z"}, ["mine"], 0),
        ({"every_version": "true"}, ["mine", "mine"], 0),
        ({"model": "unknown"}, [], 0),
    ],
)
def test_what_is_listed(
    client: TestClient[Litestar], query: dict[str, str], models: list[str], to_come: int
) -> None:
    """Own prices are listed, or those of a name or a pattern, of now or of a time."""
    post(client, model="mine")
    post(client, model="mine", effective_from="2099-01-01T00:00:00Z")

    answer = client.get("/api/v1/prices", params=query).json()

    assert [price["model"] for price in answer["data"]] == models
    assert (answer["versions_to_come"], answer["models_listed"]) == (to_come, 1)


@pytest.mark.parametrize("at", ["2026-12-01T00:00:00", "2026-12-01", "soon"])
def test_a_time_without_an_offset(client: TestClient[Litestar], at: str) -> None:
    """A time that could be meant in any zone is refused by name."""
    answer = client.get("/api/v1/prices", params={"at": at})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "at"


def test_the_document_has_an_example(client: TestClient[Litestar]) -> None:
    """The description of the API shows a price that can be set as it stands there."""
    document = client.get("/api/v1/openapi.json").json()

    body = document["paths"]["/api/v1/prices"]["post"]["requestBody"]
    example = body["content"]["application/json"]["examples"]["example"]["value"]
    assert client.post("/api/v1/prices", json=example).status_code == 201


def ask(meter: Meter, key: str, model: str) -> httpx.Response:
    """Ask for a completion."""
    return httpx.post(
        f"{meter.url}/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
        timeout=WAIT_SECONDS_MAX,
        trust_env=False,
    )


def test_a_server_lives_by_the_price_within_seconds(meter: Meter, upstream: FakeUpstream) -> None:
    """A key that may use priced models only is refused until there is a price, and then rated by it."""
    model = f"acme/{uuid4()}"
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    completion = {"id": "g", "model": model, "choices": [], "usage": usage}
    upstream.answer([response(json.dumps(completion).encode())])
    key = meter.new_key()
    with meter.control as control:
        path = f"/api/v1/keys/{key.split('_')[1]}"
        changed = control.patch(path, json={"unpriced": "block"})
        refused = ask(meter, key, model)
        reached = len(upstream.received)
        control.post(
            "/api/v1/prices",
            json={"model": model, "prompt_usd_per_mtok": "3", "completion_usd_per_mtok": "15"},
        )
        within(
            LIVE_WITHIN_SECONDS,
            lambda: until(lambda: ask(meter, key, model).status_code == 200, "the price to be live"),
        )
        page = control.get("/metrics").text

    assert (changed.json()["unpriced"], changed.json()["stream_usage"]) == ("block", None)
    assert (refused.status_code, reached) == (403, 0)
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_priced", "model")
    assert f"meter prices set {model} --prompt" in error["message"]
    assert 'meter_refusals_total{reason="model_not_priced"}' in page
    event = meter.event(key)
    assert event.cost == 1000 * 3_000_000 + 10 * 15_000_000


def test_the_first_report_of_a_new_server_has_a_cost(tmp_path: Any) -> None:
    """With the prices of the package, the sample provider's first answer has a price at once."""
    with server.running(tmp_path / "data", "--sample", prices_seed="genai-prices") as started:
        answer = ask(started, started.first_key, "anthropic/claude-sonnet-4")
        event = started.event(started.first_key)
        total = started.report()["total"]

    usage = answer.json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    expected = (usage["prompt_tokens"] - cached) * 3_000_000 + cached * 300_000
    assert event.cost == expected + usage["completion_tokens"] * 15_000_000
    assert total["unpriced_requests"] == 0
