"""LangChain's ChatOpenAI in front of meter: RouterHub's examples with another base URL and another key."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

import httpx2
import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from openai import AuthenticationError, DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import SecretStr

from tests.clients import routerhub
from tests.clients.routerhub import EXAMPLES, Example, Json, by_answer, by_example
from tests.fake_upstream import FakeUpstream
from tests.server import Meter

USAGE = {
    "input_tokens": 14,
    "output_tokens": 32,
    "total_tokens": 46,
    "input_token_details": {"cache_read": 6},
    "output_token_details": {"reasoning": 20},
}
# Left to itself, LangChain asks for usage only of OpenAI's own base URL.
by_stream_usage = pytest.mark.parametrize("stream_usage", [True, False, None], ids=["on", "off", "unset"])


def make_model(meter: Meter, key: str, example: Example, **options: Any) -> ChatOpenAI:
    """Make a chat model as the documentation does."""
    given = {name: value for name, value in example.body.items() if name != "messages"}
    return ChatOpenAI(base_url=meter.url, api_key=SecretStr(key), max_retries=0, **given, **options)


@contextlib.contextmanager
def recording() -> Iterator[tuple[DefaultHttpxClient, list[httpx2.Response]]]:
    """Open connections for a model, which LangChain would never close, and note what goes over them."""
    noted: list[httpx2.Response] = []
    with DefaultHttpxClient(event_hooks={"response": [noted.append]}) as client:
        yield client, noted


async def invoke_async(meter: Meter, key: str, example: Example) -> AIMessage:
    """Ask for a completion, asynchronously."""
    async with DefaultAsyncHttpxClient() as client:
        model = make_model(meter, key, example, http_async_client=client)
        return await model.ainvoke(example.body["messages"])


async def stream_async(
    meter: Meter, key: str, example: Example, stream_usage: bool | None
) -> list[AIMessage]:
    """Ask for a stream, asynchronously."""
    async with DefaultAsyncHttpxClient() as client:
        model = make_model(meter, key, example, http_async_client=client, stream_usage=stream_usage)
        return [chunk async for chunk in model.astream(example.body["messages"])]


def request_of(example: Example, *, streamed: bool = False) -> Json:
    """Write the request that reaches the upstream; LangChain has a newer name for `max_tokens`."""
    body = example.body | {"max_completion_tokens": example.body["max_tokens"], "stream": streamed}
    del body["max_tokens"]
    return body | routerhub.flag(asked=streamed)


def message_of(example: Example, finish_reason: str = "stop", *, usage: bool = True) -> Json:
    """Write the sample answer in LangChain's terms."""
    call = {"name": "count_tokens", "args": {"text": "déjà vu"}, "id": "call_7Qx2", "type": "tool_call"}
    calls = finish_reason == "tool_calls"
    return {
        "content": "" if calls else routerhub.TEXT,
        "tool_calls": [call] if calls else [],
        "usage_metadata": USAGE if usage else None,
        "finish_reason": finish_reason,
        "model_name": example.served,
        "service_tier": "default",
    }


def shown(message: AIMessage) -> Json:
    """Return what an application sees of a message, in the same terms."""
    metadata = message.response_metadata
    return {
        "content": message.content,
        "tool_calls": message.tool_calls,
        "usage_metadata": message.usage_metadata,
        "finish_reason": metadata["finish_reason"],
        "model_name": metadata["model_name"],
        "service_tier": metadata["service_tier"],
    }


def joined(chunks: Sequence[AIMessage]) -> AIMessage:
    """Add up the chunks of a stream, as LangChain means them to be."""
    message: AIMessage = reduce(add, chunks)
    return message


@by_answer
def test_invoke(upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str) -> None:
    """A completion has every member that the upstream sent, and is one entry in the ledger."""
    document = routerhub.completion(example, finish_reason)
    upstream.answer(routerhub.answer(document))

    with recording() as (client, noted):
        message = make_model(meter, key, example, http_client=client).invoke(example.body["messages"])

    assert shown(message) == message_of(example, finish_reason)
    assert message.response_metadata["id"] == example.upstream_id
    assert message.response_metadata["system_fingerprint"] is None
    (exchange,) = noted
    assert exchange.json() == document
    assert upstream.received[-1].json() == request_of(example)
    assert upstream.received[-1].body == exchange.request.content
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, [finish_reason])


@by_example
def test_ainvoke(upstream: FakeUpstream, meter: Meter, key: str, example: Example) -> None:
    """An asynchronous completion is the same."""
    upstream.answer(routerhub.answer(routerhub.completion(example)))

    message = asyncio.run(invoke_async(meter, key, example))

    assert shown(message) == message_of(example)
    assert upstream.received[-1].json() == request_of(example)
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example)


@by_stream_usage
@by_answer
def test_stream(
    upstream: FakeUpstream,
    meter: Meter,
    key: str,
    example: Example,
    finish_reason: str,
    stream_usage: bool | None,
) -> None:
    """A stream shows usage to a model that asks for it, none otherwise, and is always metered."""
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    with recording() as (client, noted):
        model = make_model(meter, key, example, http_client=client, stream_usage=stream_usage)
        chunks = list(model.stream(example.body["messages"]))

    asked = stream_usage is True
    assert shown(joined(chunks)) == message_of(example, finish_reason, usage=asked)
    (exchange,) = noted
    assert ("stream_options" in json.loads(exchange.request.content)) == asked
    assert upstream.received[-1].json() == request_of(example, streamed=True)
    assert (upstream.received[-1].body == exchange.request.content) == asked
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@by_stream_usage
@by_example
def test_astream(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, stream_usage: bool | None
) -> None:
    """An asynchronous stream is the same."""
    upstream.answer(routerhub.answer_stream(example))

    chunks = asyncio.run(stream_async(meter, key, example, stream_usage))

    assert shown(joined(chunks)) == message_of(example, usage=stream_usage is True)
    assert upstream.received[-1].json() == request_of(example, streamed=True)
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)


def test_wrong_key(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A wrong key is the SDK's `AuthenticationError`, and nothing goes upstream."""
    example = EXAMPLES[0]

    with recording() as (client, _), pytest.raises(AuthenticationError) as raised:
        make_model(meter, routerhub.wrong(key), example, http_client=client).invoke(example.body["messages"])

    assert raised.value.code == "invalid_api_key"
    assert not upstream.received
    assert meter.events(key, 0) == []
