"""OpenAI's SDK in front of meter: RouterHub's examples with another base URL and another key."""

import asyncio
import json

import pytest
from openai import AsyncOpenAI, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.clients import routerhub
from tests.clients.routerhub import EXAMPLES, Example, Json, by_answer, by_example
from tests.fake_upstream import FakeUpstream, Gate, stream
from tests.server import Meter

# Shorter than a gate's patience, so that what waits for the upstream's end fails.
TIMEOUT_SECONDS = 30


def make_client(meter: Meter, key: str) -> OpenAI:
    """Make a client as the documentation does."""
    return OpenAI(base_url=meter.url, api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS)


async def complete_async(meter: Meter, key: str, body: Json) -> ChatCompletion:
    """Ask for a completion with an asynchronous client."""
    async with AsyncOpenAI(base_url=meter.url, api_key=key, max_retries=0) as client:
        completion: ChatCompletion = await client.chat.completions.create(**body)
        return completion


def open_stream(client: OpenAI, example: Example, *, asked: bool) -> Stream[ChatCompletionChunk]:
    """Ask for a stream."""
    flag = routerhub.flag(asked=asked)
    return client.chat.completions.create(**example.body, **flag, stream=True)


async def stream_async(meter: Meter, key: str, example: Example, *, asked: bool) -> list[ChatCompletionChunk]:
    """Ask for a stream with an asynchronous client."""
    flag = routerhub.flag(asked=asked)
    async with (
        AsyncOpenAI(base_url=meter.url, api_key=key, max_retries=0) as client,
        await client.chat.completions.create(**example.body, **flag, stream=True) as chunks,
    ):
        return [chunk async for chunk in chunks]


@by_answer
def test_completion(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A completion has every member that the upstream sent, and is one entry in the ledger."""
    document = routerhub.completion(example, finish_reason)
    upstream.answer(routerhub.answer(document))

    with make_client(meter, key) as client:
        completion = client.chat.completions.create(**example.body)

    assert completion.to_dict() == document
    assert upstream.received[-1].json() == example.body
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, [finish_reason])


@by_answer
def test_completion_async(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """The asynchronous client gets the same completion."""
    document = routerhub.completion(example, finish_reason)
    upstream.answer(routerhub.answer(document))

    completion = asyncio.run(complete_async(meter, key, example.body))

    assert completion.to_dict() == document
    assert upstream.received[-1].json() == example.body
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, [finish_reason])


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
@by_answer
def test_stream(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str, *, asked: bool
) -> None:
    """A stream shows usage to a client that asked for it, no trace of it otherwise, and is always metered."""
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    with (
        make_client(meter, key) as client,
        open_stream(client, example, asked=asked) as chunks,
    ):
        shown = [chunk.to_dict() for chunk in chunks]

    assert shown == routerhub.chunks(example, finish_reason, asked=asked)
    assert upstream.received[-1].json() == routerhub.streaming(example, asked=True)
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
@by_example
def test_stream_async(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, *, asked: bool
) -> None:
    """The asynchronous client gets the same chunks."""
    upstream.answer(routerhub.answer_stream(example))

    chunks = asyncio.run(stream_async(meter, key, example, asked=asked))

    assert [chunk.to_dict() for chunk in chunks] == routerhub.chunks(example, asked=asked)
    assert upstream.received[-1].json() == routerhub.streaming(example, asked=True)
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
def test_stream_comes_as_it_is_made(upstream: FakeUpstream, meter: Meter, key: str, *, asked: bool) -> None:
    """A client has the first chunk while the upstream has yet to write the second."""
    example, gate = EXAMPLES[0], Gate()
    first, *rest = routerhub.events(example, asked=True)
    upstream.answer(stream(first, gate, *rest))

    with (
        make_client(meter, key) as client,
        open_stream(client, example, asked=asked) as chunks,
    ):
        early = next(chunks)
        gate.open()
        late = list(chunks)

    assert [chunk.to_dict() for chunk in (early, *late)] == routerhub.chunks(example, asked=asked)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)


@by_example
def test_raw_response(upstream: FakeUpstream, meter: Meter, key: str, example: Example) -> None:
    """The raw response has the upstream's bytes and headers, and the id of the entry in the ledger."""
    document = routerhub.completion(example)
    upstream.answer(routerhub.answer(document))

    with make_client(meter, key) as client:
        raw = client.chat.completions.with_raw_response.create(**example.body)

    assert raw.content == json.dumps(document).encode()
    assert raw.parse().to_dict() == document
    assert raw.headers["content-type"] == "application/json"
    assert upstream.received[-1].body == raw.http_request.content
    event = meter.event(key)
    assert raw.headers["x-meter-request-id"] == event.event_id
    assert routerhub.entry_of(event) == routerhub.ledger_entry(example)


@by_example
def test_streaming_response(upstream: FakeUpstream, meter: Meter, key: str, example: Example) -> None:
    """A response that is read as it comes has the upstream's bytes."""
    document = routerhub.completion(example)
    upstream.answer(routerhub.answer(document))

    with (
        make_client(meter, key) as client,
        client.chat.completions.with_streaming_response.create(**example.body) as response,
    ):
        content = b"".join(response.iter_bytes())

    assert content == json.dumps(document).encode()
    assert upstream.received[-1].body == response.http_request.content
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example)


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
@by_example
def test_streaming_response_of_a_stream(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, *, asked: bool
) -> None:
    """The lines of a stream are the upstream's, but for usage that the client did not ask for."""
    upstream.answer(routerhub.answer_stream(example))
    body = routerhub.streaming(example, asked=asked)

    with (
        make_client(meter, key) as client,
        client.chat.completions.with_streaming_response.create(**body) as response,
    ):
        content = b"".join(response.iter_bytes())

    assert content == b"".join(routerhub.events(example, asked=asked))
    assert upstream.received[-1].json() == routerhub.streaming(example, asked=True)
    assert (upstream.received[-1].body == response.http_request.content) == asked
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)
