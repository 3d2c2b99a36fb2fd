"""OpenAI's SDK in front of meter: the routes beside chat completions, and everything that is refused."""

import json
import struct
from base64 import b64encode

import openai
import pytest
from openai import OpenAI

from meter.core.events import Outcome, UsageEvent, UsageSource
from tests.clients import routerhub
from tests.clients.routerhub import EXAMPLES, Json
from tests.fake_upstream import DONE, FakeUpstream, event, response, stream
from tests.server import Meter

TIMEOUT_SECONDS = 30
EXAMPLE = EXAMPLES[0]
MODEL: Json = {"id": EXAMPLE.model, "object": "model", "created": 1_747_000_000, "owned_by": "anthropic"}
VECTOR = [0.25, -0.5, 0.125]
LIMITED_HEADERS = (
    ("Content-Type", "application/json"),
    ("Retry-After", "7"),
    ("X-RateLimit-Remaining-Requests", "0"),
    ("X-Request-ID", "req_upstream"),
)


def make_client(meter: Meter, key: str) -> OpenAI:
    """Make a client as the documentation does."""
    return OpenAI(base_url=meter.url, api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS)


def error(message: str, kind: str) -> Json:
    """Write an error of the upstream's."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def charged(kept: UsageEvent) -> tuple[Outcome, UsageSource, int | None, int]:
    """Return how an attempt ended and for how many tokens."""
    return kept.outcome, kept.usage_source, kept.status, kept.total_tokens


def test_models_list(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The list of models passes, without an entry in the ledger."""
    document = {"object": "list", "data": [MODEL, MODEL | {"id": "openai/gpt-4.1"}]}
    upstream.answer(routerhub.answer(document), routerhub.answer(routerhub.completion(EXAMPLE)))

    with make_client(meter, key) as client:
        page = client.models.list()
        client.chat.completions.create(**EXAMPLE.body)

    assert page.to_dict() == document
    assert (upstream.received[0].method, upstream.received[0].target) == ("GET", "/v1/models")
    routerhub.check_credentials(upstream.received[0], key)
    assert meter.event(key).route == "chat.completions"


def test_models_retrieve(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A model with a slash in its name is asked for by the path that the SDK wrote."""
    upstream.answer(routerhub.answer(MODEL), routerhub.answer(routerhub.completion(EXAMPLE)))

    with make_client(meter, key) as client:
        raw = client.models.with_raw_response.retrieve(EXAMPLE.model)
        client.chat.completions.create(**EXAMPLE.body)

    assert raw.parse().to_dict() == MODEL
    assert upstream.received[0].target == raw.http_request.url.raw_path.decode()
    routerhub.check_credentials(upstream.received[0], key)
    assert meter.event(key).route == "chat.completions"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(upstream: FakeUpstream, meter: Meter, key: str, encoding: str) -> None:
    """Embeddings pass, as numbers and in the SDK's own base64, and are metered by their prompt."""
    packed = b64encode(struct.pack("<3f", *VECTOR)).decode()
    data = {"object": "embedding", "index": 0, "embedding": VECTOR if encoding == "float" else packed}
    usage = {"prompt_tokens": 14, "total_tokens": 14}
    model = "openai/text-embedding-3-small"
    upstream.answer(
        routerhub.answer({"object": "list", "data": [data], "model": model, "usage": usage}),
    )
    asked: Json = {"encoding_format": "float"} if encoding == "float" else {}

    with make_client(meter, key) as client:
        embeddings = client.embeddings.create(model=model, input=["déjà vu"], **asked)

    assert embeddings.data[0].embedding == VECTOR
    assert embeddings.usage.to_dict() == usage
    received = upstream.received[-1]
    assert received.json() == {"model": model, "input": ["déjà vu"], "encoding_format": encoding}
    kept = meter.event(key)
    assert (kept.route, kept.model_requested, kept.model_served) == ("embeddings", model, model)
    assert (kept.prompt_tokens, kept.completion_tokens) == (14, 0)
    assert charged(kept) == (Outcome.OK, UsageSource.REPORTED, 200, 14)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_legacy_completion(upstream: FakeUpstream, meter: Meter, key: str, *, streamed: bool) -> None:
    """Legacy completions pass, whole and streamed, and are metered like any other."""
    choice = {"index": 0, "text": routerhub.TEXT, "logprobs": None, "finish_reason": "length"}
    plain = routerhub.completion(EXAMPLE) | {"object": "text_completion", "choices": [choice]}
    del plain["usage"]
    whole = plain | {"usage": routerhub.USAGE}
    pieces = [event(plain | {"usage": None}), event(whole | {"choices": []}), DONE]
    upstream.answer(stream(*pieces) if streamed else routerhub.answer(whole))
    body: Json = {"model": EXAMPLE.model, "prompt": "Count", "max_tokens": 256}

    with make_client(meter, key) as client:
        if streamed:
            with client.completions.create(**body, stream=True) as chunks:
                shown = [chunk.to_dict() for chunk in chunks]
        else:
            shown = [client.completions.create(**body).to_dict()]

    asked: Json = {"stream": True} | routerhub.flag(asked=True) if streamed else {}
    assert shown == [plain if streamed else whole]
    assert upstream.received[-1].json() == body | asked
    entry = routerhub.ledger_entry(EXAMPLE, ["length"], streamed=streamed) | {"route": "completions"}
    assert routerhub.entry_of(meter.event(key)) == entry


def test_wrong_key(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A wrong key is an `AuthenticationError`; nothing goes upstream and nothing is charged."""
    with (
        make_client(meter, routerhub.wrong(key)) as client,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        client.chat.completions.create(**EXAMPLE.body)

    assert raised.value.code == "invalid_api_key"
    assert not upstream.received
    assert meter.events(key, 0) == []


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_rate_limit(upstream: FakeUpstream, meter: Meter, key: str, *, streamed: bool) -> None:
    """The upstream's 429 is a `RateLimitError` with the upstream's body and headers, and is free."""
    document = error("Slow down.", "rate_limit_error")
    refusal = response(json.dumps(document).encode(), status="429 Too Many Requests", headers=LIMITED_HEADERS)
    upstream.answer([refusal])

    with make_client(meter, key) as client, pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(**EXAMPLE.body, stream=streamed)

    assert raised.value.body == document["error"]
    assert raised.value.request_id == "req_upstream"
    headers = raised.value.response.headers
    assert {name: headers[name] for name, _ in LIMITED_HEADERS} == dict(LIMITED_HEADERS)
    kept = meter.event(key)
    assert charged(kept) == (Outcome.UPSTREAM_ERROR, UsageSource.NONE, 429, 0)
    assert kept.event_id == headers["x-meter-request-id"]


def test_retries(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Each attempt of a client that tries again is an entry of its own, and only one is charged."""
    limited = response(
        json.dumps(error("Slow down.", "rate_limit_error")).encode(),
        status="429 Too Many Requests",
        headers=[("Content-Type", "application/json"), ("Retry-After-Ms", "1")],
    )
    upstream.answer([limited], routerhub.answer(routerhub.completion(EXAMPLE)))

    with make_client(meter, key).with_options(max_retries=1) as client:
        completion = client.chat.completions.create(**EXAMPLE.body)

    assert completion.to_dict() == routerhub.completion(EXAMPLE)
    refused, served = meter.events(key, 2)
    assert charged(refused) == (Outcome.UPSTREAM_ERROR, UsageSource.NONE, 429, 0)
    assert routerhub.entry_of(served) == routerhub.ledger_entry(EXAMPLE)


def test_upstream_fault(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The upstream's 500 is an `InternalServerError` with the upstream's body, and is free."""
    document = error("Something broke.", "server_error")
    upstream.answer(routerhub.answer(document, "500 Internal Server Error"))

    with make_client(meter, key) as client, pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(**EXAMPLE.body)

    assert raised.value.body == document["error"]
    assert charged(meter.event(key)) == (Outcome.UPSTREAM_ERROR, UsageSource.NONE, 500, 0)


@pytest.mark.parametrize(
    ("faulty", "param"),
    [
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_request(upstream: FakeUpstream, meter: Meter, key: str, faulty: Json, param: str) -> None:
    """What cannot be metered is a `BadRequestError` that names the parameter, and does not go upstream."""
    with make_client(meter, key) as client, pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**EXAMPLE.body | faulty)

    assert (raised.value.type, raised.value.param) == ("invalid_request_error", param)
    assert not upstream.received
    assert meter.events(key, 0) == []


def test_unknown_routes(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """What meter does not serve is a `NotFoundError` of meter's own, whatever the method."""
    with make_client(meter, key) as client:
        with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions") as listed:
            client.files.list()
        with pytest.raises(openai.NotFoundError) as posted:
            client.post("/files", body={}, cast_to=object)

    assert [listed.value.code, posted.value.code] == ["not_found", "not_found"]
    assert not upstream.received
