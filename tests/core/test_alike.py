"""Events that are alike are counted by their texts, and everything else is read as it always was."""

import json

import pytest

from meter.core.alike import TEXT_BYTES_MAX, alike
from meter.core.estimate import count_tokens
from meter.core.observation import Observation
from meter.core.sse import EVENT_BYTES_MAX
from meter.core.tap import Tap

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def event(text: str, **members: object) -> bytes:
    """Write an event as providers do."""
    delta = {"content": text}
    document = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta}], "usage": None} | members
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def observe(stream: bytes, size: int) -> Observation:
    """Read a stream in pieces of a size."""
    tap = Tap(content_type="text/event-stream", count_tokens=count_tokens)
    for at in range(0, len(stream), size):
        tap.feed(stream[at : at + size])
    return tap.finish()


@pytest.mark.parametrize(
    ("behind", "texts", "left"),
    [
        (event("b") + event("c d"), ["b", "c d"], b""),
        (event("b") + event("c")[:-1], ["b"], event("c")[:-1]),
        (event("b") + b": hello\n\n", ["b"], b": hello\n\n"),
        (event("b") + event("c", usage=USAGE), ["b"], event("c", usage=USAGE)),
        (event("b") + event('c"') + event("d"), ["b"], event('c"') + event("d")),
        (event("é") + event(""), ["é", ""], b""),
        (event("é").replace("é".encode(), b"\xc3"), ["\ufffd"], b""),
        (event("x" * (TEXT_BYTES_MAX + 1)), [], event("x" * (TEXT_BYTES_MAX + 1))),
        (event("b\\u0000"), [], event("b\\u0000")),
        (event("b").replace(b'"b"', b'"b\x01"'), [], event("b").replace(b'"b"', b'"b\x01"')),
    ],
)
def test_a_run_ends_where_an_event_is_different(behind: bytes, texts: list[str], left: bytes) -> None:
    """Only whole events that differ in nothing but a literal text are taken."""
    pattern = alike(event("a word"), "a word")
    assert pattern is not None

    found, end = pattern.run(bytearray(b"skipped" + behind), len(b"skipped"), EVENT_BYTES_MAX)

    assert (found, behind[end - len(b"skipped") :]) == (texts, left)


@pytest.mark.parametrize(
    ("single", "text"),
    [
        (event("b"), "b"),
        (event(""), ""),
        (event("é"), "é"),
        (event("é").replace("é".encode(), b"\xc3"), "\ufffd"),
        (event("x" * TEXT_BYTES_MAX), "x" * TEXT_BYTES_MAX),
        (event("x" * (TEXT_BYTES_MAX + 1)), None),
        (event('c"'), None),
        (event("b\\u0000"), None),
        (event("b").replace(b'"b"', b'"b\x01"'), None),
        (event("b", usage=USAGE), None),
        (event("b") + event("c"), None),
        (event("b")[:-1], None),
        (event("b")[1:], None),
        (b"\n" + event("b"), None),
        # What is before the text and what is behind it, but one in the other.
        (event("").replace(b'""', b'"'), None),
        (b"", None),
    ],
)
def test_a_single_event_is_told_as_in_a_run(single: bytes, text: str | None) -> None:
    """Bytes that are one event that is alike give its text, and all others are left to the run."""
    pattern = alike(event("a word"), "a word")
    assert pattern is not None

    assert pattern.text_of(single, EVENT_BYTES_MAX) == text
    assert (pattern.run(single, 0, EVENT_BYTES_MAX) == ([text], len(single))) is (text is not None)


def test_a_single_event_beyond_the_bound_is_not_taken() -> None:
    """The bound of an event holds for those that are alike."""
    pattern = alike(event("a word"), "a word")
    assert pattern is not None
    single = event("b")

    assert pattern.text_of(single, len(single)) == "b"
    assert pattern.text_of(single, len(single) - 1) is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (event("chatcmpl-1"), "chatcmpl-1"),
        (b'data: {"choices":[{"delta":{"content":"\\u0069d"}}],"id":1}\n\n', "id"),
        (event("other"), "a word"),
    ],
)
def test_no_pattern_where_the_text_could_be_another_one(raw: bytes, text: str) -> None:
    """A text that is there twice, or may be written with escapes, makes no pattern."""
    assert alike(raw, text) is None


def test_events_that_come_one_by_one_are_read_the_same() -> None:
    """A read an event, or an event in two reads, gives what the whole stream gives."""
    events = [event(f"{'word ' * (number % 40)}é{number}") for number in range(300)]
    events += [event("", choices=[], usage=USAGE), b"data: [DONE]\n\n"]
    paced, halved = (Tap(content_type="text/event-stream", count_tokens=count_tokens) for _ in range(2))

    for number, each in enumerate(events):
        paced.feed(each)
        cut = number % len(each)
        halved.feed(each[:cut])
        halved.feed(each[cut:])

    assert paced.finish() == halved.finish() == observe(b"".join(events), 100_000)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_what_is_learned_of_a_stream_is_the_same(size: int) -> None:
    """A stream of events that are alike gives what the same events give that are not."""
    words = [f"{'word ' * (number % 40)}é{number}" for number in range(300)]
    tail = event("", choices=[], usage=USAGE) + b"data: [DONE]\n\n"
    same = b"".join(map(event, words))
    # A member that is never the same twice, and that nobody reads.
    different = b"".join(event(word, padding=number) for number, word in enumerate(words))

    assert observe(same + tail, size) == observe(different + tail, 100_000)


def test_usage_in_the_middle_counts_every_time() -> None:
    """Events with usage are read one by one, whatever is alike."""
    running = [event("a", usage=USAGE | {"completion_tokens": number}) for number in range(5)]

    observation = observe(event("a") + b"".join(running) + event("a"), 100_000)

    assert observation.usage_chunks == len(running)
    assert observation.emitted_since_usage == 1
