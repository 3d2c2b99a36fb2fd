"""The stripper takes out what asking for usage added, and not a byte more."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.sse import Events
from meter.core.strip import Stripper

DATA = Path(__file__).parents[1] / "data" / "usage_cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text().splitlines()]
STREAMS = [case for case in CASES if case["body"].lstrip().startswith(("data", ":", "retry"))]

CHUNK = b'data: {"id":"c","choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def strip(stream: bytes, pieces: int = 0, **options: int) -> bytes:
    """Strip a stream that ends cleanly, whole or in pieces of a size."""
    stripper = Stripper(**options)
    size = pieces or len(stream) or 1
    passed = [stripper.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    return b"".join([*passed, stripper.finish()])


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (CHUNK + USAGE + DONE, CHUNK + DONE),
        (CHUNK + USAGE.replace(b"\n", b"\r\n") + DONE, CHUNK + DONE),
        (CHUNK + USAGE.replace(b"[]", b"[ ]") + DONE, CHUNK + DONE),
        (CHUNK + USAGE.rstrip(), CHUNK),
        (CHUNK + b"event: x\nid: 1\n" + USAGE + DONE, CHUNK + DONE),
        (CHUNK + b'data: {"choices":[],\ndata: "usage":{}}\n\n' + DONE, CHUNK + DONE),
        (b"\n: one\r\n: two\n" + USAGE + DONE, b"\n: one\r\n: two\n" + DONE),
        (b"\n\n\n" + USAGE + DONE, b"\n\n\n" + DONE),
        (b'data: {"a":1,"usage":null}\n\n', b'data: {"a":1}\n\n'),
        (b'data: {"usage":null,"a":1}\n\n', b'data: {"a":1}\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data:{"a":1, "usage": null, "b":2}\r\r', b'data:{"a":1, "b":2}\r\r'),
        (b': c\ndata: {"a":[1,2] , "usage" : null}\n\n', b': c\ndata: {"a":[1,2]}\n\n'),
        (b'\xef\xbb\xbfdata: {"a":1,"usage":null}\n\n', b'\xef\xbb\xbfdata: {"a":1}\n\n'),
        (b'data: {"choices":[],"usage":null}\n\n', b'data: {"choices":[]}\n\n'),
    ],
)
@pytest.mark.parametrize("pieces", [0, 1, 5])
def test_what_the_flag_added_is_taken_out(sent: bytes, seen: bytes, pieces: int) -> None:
    """Usage-only events go whole, `"usage":null` goes with one comma, comments and framing stay."""
    assert strip(sent, pieces) == seen


@pytest.mark.parametrize(
    "stream",
    [
        CHUNK + DONE,
        b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":null,"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[{"usage":null}]}\n\n',
        b'data: {"choices":[],"usage":[]}\n\n',
        b'data: {"choices":[],"choices":[1],"usage":{}}\n\n',
        b'data: {"usage":{},"choices":[],"usage":null}\n\n',
        b'data: {"a":"\\"usage\\":null,","b":"\\",\\"usage\\":null"}\n\n',
        b'data: {"a":1,\ndata: "usage":null}\n\n',
        b'data: {"a":1,"usage":null\n\n',
        b'data: "usage":null\n\n',
        b': "usage":null\n\n',
        b'event: x\ndata: {"choices":[],"usage":{"prompt_tok',
    ],
)
@pytest.mark.parametrize("pieces", [0, 1])
def test_everything_else_passes_untouched(stream: bytes, pieces: int) -> None:
    """Usage beside choices, usage in strings, malformed and cut events pass as they came."""
    assert strip(stream, pieces) == stream


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: str(case["id"]))
def test_recorded_streams_lose_only_usage(case: dict[str, Any]) -> None:
    """Of a recorded stream everything stays but usage-only events and null usages, however it is cut."""
    stream = str(case["body"]).encode("utf-8", "surrogatepass")

    seen = strip(stream)

    assert strip(seen) == seen
    assert strip(stream, 1) == seen
    kept = [expected for event in _documents(stream) if (expected := _as_unasked(event)) is not None]
    assert _documents(seen) == kept


def _documents(stream: bytes) -> list[object]:
    events = Events()
    found = [event.data.strip() for event in [*events.feed(stream), *events.finish()]]
    return [_loaded(data) for data in found if data]


def _loaded(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data


def _as_unasked(document: object) -> object | None:
    """Return a chunk as an upstream that was not asked for usage would have sent it."""
    if not isinstance(document, dict):
        return document
    if isinstance(document.get("usage"), dict) and document.get("choices") == []:
        return None
    if "usage" in document and document["usage"] is None:
        return {name: value for name, value in document.items() if name != "usage"}
    return document


@given(
    parts=st.lists(
        st.sampled_from([CHUNK, USAGE, DONE, b": c\n\n", b"\r", b"\n", b'data: {"a":1,"usage":null}\r\n\r\n'])
    ),
    seed=st.integers(),
)
def test_what_was_passed_on_is_always_a_prefix(parts: list[bytes], seed: int) -> None:
    """After any chunk, what has been passed on is a prefix of the whole stripped stream."""
    stream = b"".join(parts)
    whole = strip(stream)
    chance = random.Random(seed)
    stripper = Stripper()
    passed = b""
    at = 0
    while at < len(stream):
        size = chance.randint(1, 40)
        passed += stripper.feed(stream[at : at + size])
        at += size
        assert whole.startswith(passed)

    assert passed + stripper.finish() == whole


def test_an_event_passes_as_soon_as_it_is_complete() -> None:
    """Nothing waits for the event after it."""
    stripper = Stripper()

    assert stripper.feed(CHUNK) == CHUNK
    assert stripper.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert stripper.feed(CHUNK[:-1]) == b""
    assert stripper.feed(CHUNK[-1:] + USAGE) == CHUNK


@pytest.mark.parametrize("pieces", [0, 1, 30])
def test_an_event_beyond_the_bound_ends_the_editing(pieces: int) -> None:
    """From an event that is too large on, everything passes untouched."""
    large = b"data: " + b"x" * 200 + b"\n\n"

    assert strip(USAGE + large + USAGE, pieces, event_bytes_max=100) == large + USAGE


def test_giving_up_is_told() -> None:
    """The caller can count the streams that were not edited to their end."""
    stripper = Stripper(event_bytes_max=10)

    before = stripper.gave_up
    passed = stripper.feed(CHUNK) + stripper.finish()

    assert (before, stripper.gave_up) == (False, True)
    assert passed == CHUNK


def test_bytes_that_are_no_stream_pass() -> None:
    """A body that is something else, by mistake, comes out as it went in."""
    body = gzip.compress(USAGE * 10)

    assert strip(body, 3) == body
