"""Streams are metered exactly, and the client sees what it would have seen without meter."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from meter.core.events import UsageSource
from tests import server, wire
from tests.fake_upstream import FakeUpstream, response, stream
from tests.providers import PROVIDERS, SENDS_UNASKED, USAGE, WORDS, answering, openai
from tests.server import Meter

LACKING: dict[str, dict[str, Any]] = {
    "absent": {},
    "null": {"stream_options": None},
    "empty": {"stream_options": {}},
    "null inside": {"stream_options": {"include_usage": None}},
    "false": {"stream_options": {"include_usage": False}},
    "other options": {"stream_options": {"include_obfuscation": False}},
}
EXACT = (14, 32, 6, 20, UsageSource.REPORTED)


def numbers(meter: Meter, key: str) -> tuple[int, int, int, int, UsageSource]:
    """Return what the ledger holds of a key's one request."""
    found = meter.event(key)
    details = (found.cached_tokens, found.reasoning_tokens, found.usage_source)
    return (found.prompt_tokens, found.completion_tokens, *details)


@pytest.fixture(scope="module")
def observing(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter that touches nothing."""
    data_dir = tmp_path_factory.mktemp("observing") / "data"
    with server.running(data_dir, upstream_url=upstream_server.url, stream_usage="observe") as running:
        yield running


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("lacking", LACKING)
def test_ensure_meters_what_was_not_asked_for(
    provider: str, lacking: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """Without the flag, the client's bytes are those of a direct call, and the ledger's numbers are exact."""
    upstream.answer(answering(PROVIDERS[provider]))
    body = wire.chat(stream=True, **LACKING[lacking])

    direct = wire.post(upstream.url, None, body)
    through = wire.post(meter.url, key, body)

    assert through.body == direct.body
    assert through.whole
    assert numbers(meter, key) == EXACT


@pytest.mark.parametrize("provider", PROVIDERS)
def test_ensure_leaves_what_was_asked_for(
    provider: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """With the flag, nothing is touched either way."""
    upstream.answer(answering(PROVIDERS[provider]))
    body = wire.chat(stream=True, stream_options={"include_usage": True})

    direct = wire.post(upstream.url, None, body)
    through = wire.post(meter.url, key, body)

    assert upstream.received[-1].body == body
    assert through.body == direct.body
    assert numbers(meter, key) == EXACT


@pytest.mark.parametrize("lacking", LACKING)
def test_ensure_changes_one_member_of_the_request(
    lacking: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """The upstream gets the client's bytes with the flag spliced in, and is asked for no compression."""
    upstream.answer(answering(openai))
    body = b'{ "model":"m", "seed" : 1.50,' + wire.chat(stream=True, **LACKING[lacking])[1:]
    body = body.replace(b', "model": "test-model"', b"").replace(b'"model": "test-model", ', b"")

    wire.post(meter.url, key, body, headers=[("Accept-Encoding", "gzip")])

    received = upstream.received[-1]
    asked = json.loads(body)
    options = (asked.get("stream_options") or {}) | {"include_usage": True}
    assert received.json() == asked | {"stream_options": options}
    assert received.body.startswith(b'{ "model":"m", "seed" : 1.50,')
    assert received.header("accept-encoding") == "identity"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_observe_touches_nothing(provider: str, upstream: FakeUpstream, observing: Meter) -> None:
    """In `observe`, both directions pass as they are; what sends no usage is estimated, and says so."""
    upstream.answer(answering(PROVIDERS[provider]))
    key = observing.new_key()
    body = wire.chat(stream=True)

    direct = wire.post(upstream.url, None, body)
    through = wire.post(observing.url, key, body)

    assert upstream.received[-1].body == body
    assert through.body == direct.body
    found = observing.event(key)
    expected = UsageSource.REPORTED if provider in SENDS_UNASKED else UsageSource.ESTIMATED
    assert found.usage_source is expected
    assert found.completion_tokens >= len(WORDS)


def test_a_key_may_be_metered_differently(upstream: FakeUpstream, meter: Meter) -> None:
    """A key's own mode wins over the settings."""
    key = meter.new_key()
    upstream.answer(answering(openai))
    changed = meter.run("keys", "set", key, "--stream-usage", "observe")
    body = wire.chat(stream=True)

    wire.post(meter.url, key, body)

    assert changed.returncode == 0, changed.stderr
    assert upstream.received[-1].body == body


def test_an_upstream_may_be_metered_differently(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An upstream's mode wins over the settings, for the models that it serves."""
    upstream.answer(answering(openai))
    folder = tmp_path_factory.mktemp("modes")
    config = folder / "two.toml"
    config.write_text(
        f'[[upstreams]]\nname = "other"\nurl = "{upstream.url}"\nmodels = ["x/*"]\nstream_usage = "observe"\n'
    )
    with server.running(folder / "data", "--config", str(config), upstream_url=upstream.url) as meter:
        for model in ("x/y", "y"):
            wire.post(meter.url, meter.first_key, wire.chat(stream=True, model=model))
        events = meter.events(meter.first_key, 2)

    asked = ["stream_options" in received.json() for received in upstream.received]
    assert asked == [False, True]
    assert [event.upstream for event in events] == ["other", "127.0.0.1"]


def test_a_compressed_answer_to_a_spliced_request_passes(
    upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """An upstream that compresses although it was asked not to is passed on as it is, and still metered."""
    body = gzip.compress(b"".join(openai(asked=True)))
    coded = [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")]
    upstream.answer([response(body, headers=coded)])

    answer = wire.post(meter.url, key, wire.chat(stream=True))

    assert answer.body == body
    assert numbers(meter, key) == EXACT
    assert "not_stripped" in meter.event(key).anomalies


def test_an_error_to_a_spliced_request_passes(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A refusal is no stream, and nothing is taken out of it."""
    refusal = b'{"error":{"message":"no","usage":null}}'
    upstream.answer([response(refusal, status="400 Bad Request")])

    answer = wire.post(meter.url, key, wire.chat(stream=True))

    assert (answer.status, answer.body) == (400, refusal)


def test_a_stream_with_a_length_is_metered_and_stripped(
    upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """A length that would no longer be right is not passed on."""
    whole = b"".join(openai(asked=True))
    upstream.answer([response(whole, headers=[("Content-Type", "text/event-stream")])])

    answer = wire.post(meter.url, key, wire.chat(stream=True))

    assert answer.body == b"".join(openai(asked=False))
    assert answer.whole
    assert numbers(meter, key) == EXACT


@pytest.mark.parametrize("size", [1, 7, 64])
def test_any_chunking_gives_the_same(size: int, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """However the upstream's bytes are cut, the client's bytes and the numbers are the same."""
    whole = b"".join(openai(asked=True))
    upstream.answer(stream(*(whole[at : at + size] for at in range(0, len(whole), size))))

    answer = wire.post(meter.url, key, wire.chat(stream=True))

    assert answer.body == b"".join(openai(asked=False))
    assert numbers(meter, key) == EXACT
    assert json.loads(meter.event(key).usage_raw or "") == USAGE
