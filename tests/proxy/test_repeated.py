"""Heads that repeat: whatever is taken for the head before, a parser reads just so."""

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from meter.proxy.opening import CONTENT_LENGTH, Opening
from meter.proxy.repeated import repeated

NAMES = st.sampled_from([b"Host", b"X-Trace", b"Authorization", b"Content-Length-X", b"X-Content-Length"])
VALUES = st.sampled_from([b"a", b"", b"12", b"content-length: 7", b"\xe9 b"])
LENGTH_NAMES = st.sampled_from(
    [b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH:  ", b"content-length: 0"]
)
DIGITS = st.one_of(
    st.integers(0, 10**7).map(lambda number: b"%d" % number),
    st.sampled_from(
        [b"", b"+1", b"1 ", b" 1", b"1_0", b"0x1", b"007", b"1\r\nX: y", b"\xb2", b"1\n", b"1,1"]
    ),
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


class Read:
    """What a parser reads of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Take note of the end."""
        self.complete = True


def head(headers: list[tuple[bytes, bytes]], at: int, length: bytes) -> bytes:
    """Write a head with its length among the headers."""
    lines = [name + b": " + value for name, value in headers]
    lines.insert(min(at, len(lines)), length)
    return b"\r\n".join([b"POST /v1/chat/completions HTTP/1.1", *lines, b"", b""])


@given(HEADERS, st.integers(0, 4), LENGTH_NAMES, DIGITS, DIGITS)
@example([], 0, b"content-length: ", b"2", b"12")
def test_what_is_taken_for_the_same_is_read_the_same(
    headers: list[tuple[bytes, bytes]], at: int, name: bytes, first: bytes, second: bytes
) -> None:
    """Where the head before was parsed, and the next is found to be it, a parser agrees in every point."""
    before = head(headers, at, name + first)
    try:
        read = Read(before)
    except httptools.HttpParserError:
        return
    opening = Opening([header for header in read.headers if header[0] != CONTENT_LENGTH], None)
    known = repeated(before, len(read.headers), url=b"/", opening=opening, keep_alive=True)
    data = head(headers, at, name + second) + b"x" * 40
    found = None if known is None else known.find(data)
    if found is None:
        return

    start, length = found

    again = Read(data[: start + min(length, 40)])
    lengths = [value for name, value in again.headers if name == CONTENT_LENGTH]
    assert [header for header in again.headers if header[0] != CONTENT_LENGTH] == opening.headers
    assert [int(value) for value in lengths] == [length]
    assert again.body == data[start : start + min(length, 40)]
    assert again.complete == (length <= len(again.body))


def test_an_ordinary_head_is_found_again() -> None:
    """The next length may have other digits."""
    headers = [(b"Host", b"meter"), (b"Authorization", b"Bearer key")]
    before, data = (head(headers, 1, b"Content-Length: " + digits) for digits in (b"2", b"1234"))
    opening = Opening([(b"host", b"meter"), (b"authorization", b"Bearer key")], None)

    known = repeated(before + b"{}", 3, url=b"/", opening=opening, keep_alive=True)

    assert known is not None
    assert known.find(data + b"{") == (len(data), 1234)
    assert known.find(data[:-1]) is None
    assert known.find(data.replace(b"key", b"kez")) is None


def test_a_head_that_is_cut_or_has_other_lines_is_not_remembered() -> None:
    """Only lines that the parser has read count."""
    whole = head([(b"Host", b"meter")], 0, b"Content-Length: 2")
    opening = Opening([(b"host", b"meter")], None)

    for data, headers in ((whole[:-1], 2), (whole, 3), (b"\r\n" + whole, 2), (b"", 2)):
        assert repeated(data, headers, url=b"/", opening=opening, keep_alive=True) is None
