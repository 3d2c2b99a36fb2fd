"""Framing follows the event-stream format, keeps every byte, and does not depend on how it is cut."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.core.sse import Event, Events, lines

# What decides about framing, so that random streams are full of it.
ALPHABET = st.sampled_from([b"\r", b"\n", b"data:", b" ", b":", b"x", b"event: e", b"error", b"\xef\xbb\xbf"])
STREAMS = st.lists(ALPHABET, max_size=30).map(b"".join)


def read(stream: bytes, pieces: int = 0) -> list[Event]:
    """Read a stream to its end, whole or in pieces of a size."""
    events = Events()
    size = pieces or len(stream) or 1
    found = [event for at in range(0, len(stream), size) for event in events.feed(stream[at : at + size])]
    return found + events.finish()


def data_of(stream: bytes) -> list[bytes]:
    """Return the data of the events that have some."""
    return [event.data for event in read(stream) if event.data]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("pieces", [0, 1, 2, 3])
def test_lines_end_with_lf_crlf_or_cr(end: bytes, pieces: int) -> None:
    """All three line ends frame events, also when a chunk ends between CR and LF."""
    stream = b"data: a" + end + end + b": c" + end + b"data: b" + end + end

    events = read(stream, pieces)

    assert [event.data for event in events] == [b"a", b"b"]
    assert [event.comments for event in events] == [0, 1]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\ndata\ndata: b\n\n", [b"a\n\nb"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"id: 1\nretry: 5\nDATA: no\n data: no\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\rdata: b\n\r\n", [b"a", b"b"]),
        (b"data: a\xe2\x80\xa8\xc2\x85\x0b\x0cb\n\n", [b"a\xe2\x80\xa8\xc2\x85\x0b\x0cb"]),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\n\ndata: b\r", [b"a", b"b"]),
        (b"data\n\n", []),
        (b"", []),
    ],
)
def test_fields_are_read_as_the_format_says(stream: bytes, expected: list[bytes]) -> None:
    """One blank after the colon goes, data lines are joined, only CR and LF end lines."""
    assert data_of(stream) == expected


def test_the_error_field_is_kept() -> None:
    """Unknown fields are ignored, but `error`, which llama.cpp sends in place of data, is not."""
    (event,) = read(b'event: x\nerror: {"error":1}\n\n')

    assert event.error == b'{"error":1}'
    assert (event.data, event.event) == (b"", b"x")


def test_data_in_one_piece_can_be_found_in_the_raw_bytes() -> None:
    """The place of single-line data is known, also behind a mark, a comment and another line end."""
    single, several = read(b"\xef\xbb\xbf: c\r\ndata:a b\r\n\r\ndata: c\ndata: d\n\n")

    assert single.raw[single.data_at :].startswith(b"a b")
    assert several.data_at == -1


@given(stream=STREAMS, seed=st.integers())
def test_events_do_not_depend_on_the_cut_and_keep_every_byte(stream: bytes, seed: int) -> None:
    """However a stream is cut, its events are the same, and their raw bytes are the stream."""
    events = Events()
    chance = random.Random(seed)
    found: list[Event] = []
    at = 0
    while at < len(stream):
        size = chance.randint(1, 5)
        found += events.feed(stream[at : at + size])
        at += size
    found += events.finish()

    assert found == read(stream)
    assert b"".join(event.raw for event in found) == stream


@settings(deadline=None)
@given(stream=STREAMS)
def test_the_short_way_reads_like_the_long_one(stream: bytes) -> None:
    """Reading data line by line as the format describes gives the same data."""
    expected = []
    data: list[bytes] = []
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in [*text.split(b"\n"), b""]:
        if line.startswith((b"data:", b"data")) and line[4:5] in {b":", b""}:
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            expected.append(b"\n".join(data))
            data = []

    assert data_of(stream) == [value for value in expected if value]


@pytest.mark.parametrize("pieces", [0, 1, 7])
def test_an_event_beyond_the_bound_stops_the_reading_for_good(pieces: int) -> None:
    """Events before the one that is too large are returned, nothing after it is, and nothing raises."""
    stream = b"data: a\n\ndata: " + b"x" * 100 + b"\n\ndata: b\n\n"
    events = Events(event_bytes_max=50)
    size = pieces or len(stream)

    found = [event for at in range(0, len(stream), size) for event in events.feed(stream[at : at + size])]

    assert [event.data for event in found] == [b"a"]
    assert events.tripped
    assert events.finish() == []


def test_an_event_of_exactly_the_bound_is_read() -> None:
    """The bound itself is allowed."""
    event = b"data: a\n\n"

    assert Events(event_bytes_max=len(event)).feed(event)[0].data == b"a"
    assert Events(event_bytes_max=len(event) - 1).feed(event) == []


def test_the_bytes_held_can_be_taken_back() -> None:
    """What belongs to no event yet is given away once."""
    events = Events()
    events.feed(b"data: a\n\ndata: b")

    assert events.take_rest() == b"data: b"
    assert events.finish() == []


def test_a_large_event_in_small_pieces_takes_linear_time() -> None:
    """Four times the bytes take about four times as long, not sixteen times."""

    def seconds(size: int) -> float:
        events = Events(event_bytes_max=100_000_000)
        started = time.thread_time()
        for _ in range(size // 64):
            events.feed(b"x" * 64)
        return time.thread_time() - started

    small = min(seconds(250_000) for _ in range(3))

    assert seconds(4_000_000) < 16 * small * 4


def test_lines_come_with_their_places() -> None:
    """Lines are split at every kind of end, a last one without an end included."""
    assert lines(b"a\r\n\nb\rc") == [(0, b"a"), (3, b""), (4, b"b"), (6, b"c")]
