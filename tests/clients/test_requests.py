"""requests in front of meter: RouterHub's examples with another base URL and another key."""

import json

import pytest
import requests

from tests.clients import routerhub
from tests.clients.routerhub import EXAMPLES, Example, by_answer, by_example
from tests.fake_upstream import FakeUpstream, Gate, stream
from tests.server import Meter

# Shorter than a gate's patience, so that what waits for the upstream's end fails.
TIMEOUT_SECONDS = 30


def headers(key: str) -> dict[str, str]:
    """Write the headers of the documentation's examples."""
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def post(meter: Meter, key: str, body: bytes, *, streamed: bool = False) -> requests.Response:
    """Send a chat completion."""
    url = f"{meter.url}/chat/completions"
    return requests.post(url, headers=headers(key), data=body, stream=streamed, timeout=TIMEOUT_SECONDS)


@by_answer
def test_completion(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A completion passes byte for byte in both directions, and is one entry in the ledger."""
    sent = routerhub.written(example.body)
    document = routerhub.completion(example, finish_reason)
    upstream.answer(routerhub.answer(document))

    with post(meter, key, sent) as answer:
        received = answer.json()

    assert answer.status_code == requests.codes.ok
    assert received == document
    assert answer.content == json.dumps(document).encode()
    assert upstream.received[-1].body == sent
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, [finish_reason])


@by_example
def test_completion_by_the_json_argument(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example
) -> None:
    """A body that requests itself writes reaches the upstream with the bytes that requests made of it."""
    upstream.answer(routerhub.answer(routerhub.completion(example)))
    url = f"{meter.url}/chat/completions"

    with requests.post(url, headers=headers(key), json=example.body, timeout=TIMEOUT_SECONDS) as answer:
        received = answer.json()

    assert received == routerhub.completion(example)
    assert upstream.received[-1].body == answer.request.body
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example)


@by_answer
def test_stream_without_asking_for_usage(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A stream shows no trace of the usage that meter asked for, and is metered by it all the same."""
    sent = routerhub.written(routerhub.streaming(example, asked=False))
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    with post(meter, key, sent, streamed=True) as answer:
        lines = [line for line in answer.iter_lines() if line]

    shown = routerhub.events(example, finish_reason, asked=False)
    assert lines == [event.strip() for event in shown]
    assert upstream.received[-1].body == routerhub.with_flag(sent)
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@by_answer
def test_stream_with_usage(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A stream whose usage the client asked for passes byte for byte in both directions."""
    sent = routerhub.written(routerhub.streaming(example, asked=True))
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    with post(meter, key, sent, streamed=True) as answer:
        content = b"".join(answer.iter_content(chunk_size=None))

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert content == b"".join(routerhub.events(example, finish_reason, asked=True))
    assert upstream.received[-1].body == sent
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@pytest.mark.parametrize("asked", [True, False])
def test_stream_comes_as_it_is_made(upstream: FakeUpstream, meter: Meter, key: str, *, asked: bool) -> None:
    """A client has the first chunk while the upstream has yet to write the second."""
    example, gate = EXAMPLES[0], Gate()
    first, *rest = routerhub.events(example, asked=True)
    upstream.answer(stream(first, gate, *rest))
    sent = routerhub.written(routerhub.streaming(example, asked=asked))

    with post(meter, key, sent, streamed=True) as answer:
        lines = answer.iter_lines(chunk_size=1)
        early = next(lines)
        gate.open()
        late = [line for line in lines if line]

    shown = [event.strip() for event in routerhub.events(example, asked=asked)]
    assert [early, *late] == shown
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)
