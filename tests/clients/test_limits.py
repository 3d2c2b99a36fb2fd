"""OpenAI's SDK at a limit: it tries a rate limit again, as told, and a used up budget never."""

from datetime import UTC, datetime
from typing import Any

import pytest
from openai import DefaultHttpxClient, OpenAI, RateLimitError

from meter.core.errors import InsufficientQuota, MeterError, Quota, RateLimitExceeded
from tests import wire
from tests.fake_upstream import FakeUpstream, Gate, event, response, stream
from tests.server import Meter, until

OK = response(b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[]}')


def complete(client: OpenAI) -> str:
    """Ask for a completion."""
    return client.chat.completions.create(model="test-model", messages=[{"role": "user", "content": "Hi"}]).id


def written(refusal: MeterError) -> bytes:
    """Write a refusal as a response."""
    headers = [("Content-Type", "application/json"), *refusal.headers]
    return response(refusal.body(), status=f"{refusal.status} Refused", headers=headers)


def test_a_rate_limit_is_tried_again(upstream: FakeUpstream) -> None:
    """The SDK waits as long as `retry-after` says, and asks again."""
    refusal = written(RateLimitExceeded("Try again in 1 s.", retry_after_seconds=0.3))
    upstream.answer([refusal], [OK])

    with OpenAI(base_url=upstream.url, api_key="k", max_retries=2) as client:
        assert complete(client) == "1"

    assert len(upstream.received) == 2


def test_a_place_that_gets_free_is_taken(upstream: FakeUpstream, meter: Meter) -> None:
    """The SDK is refused while the key's one place is taken, tries again, and gets its answer."""
    key = meter.new_key()
    gate = Gate()
    statuses: list[int] = []

    def note(answer: Any) -> None:
        statuses.append(answer.status_code)
        gate.open()

    upstream.answer(stream(event({"choices": []}), gate), [OK])
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"concurrency": 1})
    noting = DefaultHttpxClient(event_hooks={"response": [note]}, trust_env=False)
    with (
        wire.connected(meter.url) as connection,
        OpenAI(base_url=meter.url, api_key=key, max_retries=2, http_client=noting) as client,
    ):
        body = wire.chat(stream=True)
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        connection.read_until(b"data: ")

        assert complete(client) == "1"

    assert statuses == [429, 200]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (
            InsufficientQuota("key k", Quota("1 USD", "1 USD", "0 USD", "0.1 USD", datetime.now(UTC))),
            "insufficient_quota",
        ),
        (RateLimitExceeded("This can never pass.", retry_after_seconds=None), "rate_limit_exceeded"),
    ],
)
def test_what_does_not_help_is_not_tried_again(
    upstream: FakeUpstream, refusal: MeterError, code: str
) -> None:
    """The SDK raises at once, with the code that programs look at."""
    upstream.answer([written(refusal)])

    with (
        OpenAI(base_url=upstream.url, api_key="k", max_retries=2) as client,
        pytest.raises(RateLimitError) as raised,
    ):
        complete(client)

    assert len(upstream.received) == 1
    assert raised.value.code == code


def test_the_sdk_reads_meters_own_refusal(upstream: FakeUpstream, meter: Meter) -> None:
    """A key at its limit raises the SDK's error for it, which the SDK would try again."""
    key = meter.new_key()
    upstream.answer([OK])
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"rpm": 1})

    with OpenAI(base_url=meter.url, api_key=key, max_retries=0) as client:
        complete(client)
        with pytest.raises(RateLimitError) as raised:
            complete(client)

        assert client._should_retry(raised.value.response)  # noqa: SLF001 (waiting for it takes a minute)
    assert raised.value.code == "rate_limit_exceeded"
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60
    assert len(upstream.received) == 1


def test_a_used_up_budget_is_asked_once(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The SDK asks once where meter says that the budget is spent, and raises what programs look at."""
    upstream.answer([OK])
    statuses: list[int] = []
    budget = {"key": key.split("_")[1], "measure": "requests", "limit": "1", "period": "total"}
    with meter.control as control:
        control.put("/api/v1/budgets", json=budget | {"enforcement": "strict"}).raise_for_status()
    noting = DefaultHttpxClient(
        event_hooks={"response": [lambda answer: statuses.append(answer.status_code)]}, trust_env=False
    )

    with OpenAI(base_url=meter.url, api_key=key, max_retries=2, http_client=noting) as client:
        refusal = until(lambda: refused(client), "the budget to be known and spent")

    assert statuses == [200] * (len(statuses) - 1) + [429]
    assert refusal is not None
    assert refusal.code == "insufficient_quota"
    assert refusal.response.headers["x-should-retry"] == "false"


def refused(client: OpenAI) -> RateLimitError | None:
    """Ask for a completion; returns how it was refused."""
    try:
        complete(client)
    except RateLimitError as refusal:
        return refusal
    return None
