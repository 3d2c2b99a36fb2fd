"""Server-sent events out of bytes, however the network cut them.

Framing is done on bytes and by the three line ends of the WHATWG event-stream format only. `str.splitlines`
would also split at characters that providers send inside JSON strings. Every event keeps its exact bytes, so
that the reader that meters and the reader that edits a stream share one piece: the raw bytes of all events,
one after the other, are the stream.
"""

import re
from collections.abc import Iterator

import msgspec

from meter.core.alike import Alike

# Lines of 70 kB are common, audio and images come in single events of megabytes.
EVENT_BYTES_MAX = 4 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LF_LF = b"\n\n"
_LINE_END = re.compile(rb"\r\n?+|\n")
# Possessive, so that a CRLF is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?:\r\n?+|\n)(?:\r\n?+|\n)")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event, or a run of lines without one (comments, blank lines)."""

    raw: bytes
    """The exact bytes on the wire, with the blank line that ends them."""
    data: bytes = b""
    """The `data` lines, joined by LF; empty where there are none."""
    event: bytes = b""
    error: bytes | None = None
    """The value of an `error` *field*, which llama.cpp sends in place of data."""
    comments: int = 0
    data_at: int = -1
    """Where `data` stands in `raw`, if it stands there in one piece; else -1."""


class Events:
    """Cuts a stream into events; linear in its length, whatever the chunks.

    An event longer than `event_bytes_max` stops the reading for good: `tripped`. What came before it has been
    returned, what was held of it can be taken with `take_rest`.
    """

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._held = bytearray()
        self._searched = 0
        self._at_start = True
        self.tripped = False
        self.alike: Alike | None = None
        """What `read` need not cut into events."""

    def feed(self, data: bytes) -> list[Event]:
        """Take in bytes and return the events that they complete; never raises."""
        return [event for event in self.read(data) if isinstance(event, Event)]

    def read_alike(self, data: bytes) -> str | None:
        """Take in bytes that are one event that is `alike`, and return its text; `None` for others."""
        if self.alike is None or self._held or self.tripped:
            return None
        return self.alike.text_of(data, self._event_bytes_max)

    def read(self, data: bytes) -> Iterator[Event | list[str]]:
        """Do the same, one by one; of events that are `alike`, which may change meanwhile, only their texts.

        It has to be read to its end.
        """
        if self.tripped:
            return
        held = self._held
        stream: bytes | bytearray = data
        if held:
            held += data
            stream = held
        start = 0
        while True:
            if self.alike is not None:
                texts, start = self.alike.run(stream, start, self._event_bytes_max)
                self._searched = max(self._searched, start)
                if texts:
                    yield texts
            end = self._next_end(stream)
            if end is None or end - start > self._event_bytes_max:
                break
            yield self._read(bytes(stream[start:end]))
            start = end
        if stream is held:
            del held[:start]
        else:
            held += data[start:]
        self._searched = max(0, self._searched - start)
        self.tripped = len(held) > self._event_bytes_max

    def finish(self) -> list[Event]:
        """Return the last event where the stream ended without a blank line."""
        rest = self.take_rest()
        return [self._read(rest)] if rest and not self.tripped else []

    def take_rest(self) -> bytes:
        """Give away the bytes that belong to no event yet."""
        rest = bytes(self._held)
        self._held.clear()
        self._searched = 0
        return rest

    def _next_end(self, stream: bytes | bytearray) -> int | None:
        at = stream.find(_LF_LF, self._searched)
        if at >= 0 and stream.find(b"\r", self._searched, at) < 0:
            # The only line end that nearly all streams have.
            self._searched = at + len(_LF_LF)
            return self._searched
        match = _BLANK_LINE.search(stream, self._searched)
        if match is None:
            # A line end that is cut in two, or half a blank line, is looked at again.
            self._searched = max(self._searched, len(stream) - 2)
            return None
        if match.end() == len(stream) and stream.endswith(b"\r"):
            # The LF that belongs to this CR may still be on its way.
            self._searched = match.start()
            return None
        self._searched = match.end()
        return match.end()

    def _read(self, raw: bytes) -> Event:
        first, self._at_start = self._at_start, False
        skipped = len(_BOM) if first and raw.startswith(_BOM) else 0
        return _read_plain(raw) or _read_lines(raw, skipped)


def _read_plain(raw: bytes) -> Event | None:
    """Read the shape of nearly all events, a single line `data: ...`, without splitting."""
    if not raw.startswith(b"data: ") or b"\r" in raw or raw.find(b"\n") != len(raw) - 2:
        return None
    return Event(raw, data=raw[6:-2], data_at=6)


def _read_lines(raw: bytes, start: int) -> Event:
    data: list[tuple[int, bytes]] = []
    fields: dict[bytes, bytes] = {}
    comments = 0
    for at, line in lines(raw, start):
        name, colon, value = line.partition(b":")
        skip = len(name) + len(colon)
        if value.startswith(b" "):
            value, skip = value[1:], skip + 1
        if name == b"data":
            data.append((at + skip, value))
        elif name:
            fields[name] = value
        elif colon:
            comments += 1
    return Event(
        raw,
        data=b"\n".join(value for _, value in data),
        event=fields.get(b"event", b""),
        error=fields.get(b"error"),
        comments=comments,
        data_at=data[0][0] if len(data) == 1 else -1,
    )


def lines(raw: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Split into lines without their ends, each with its position; a last empty piece is no line."""
    found: list[tuple[int, bytes]] = []
    for match in _LINE_END.finditer(raw, start):
        found.append((start, raw[start : match.start()]))
        start = match.end()
    if start < len(raw):
        found.append((start, raw[start:]))
    return found
