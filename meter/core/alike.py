"""Streams repeat themselves: most events are the one before, to the byte, with another piece of text in it.

Such events say nothing new but their text, so that whoever has read one need not parse the others.
"""

import re
from itertools import takewhile

# Longer pieces of text are parsed like everything else.
TEXT_BYTES_MAX = 4096

_END = b"\n\n"
# What no literal text has in it.
_SEPARATOR = b"\0"
# What stands for itself in a JSON string.
_LITERAL = re.compile(rb'[^"\\\x00-\x1f]*')


class Alike:
    """Events that are one that was read: the same bytes before and behind a text."""

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._behind = behind

    def run(self, stream: bytearray, start: int, event_bytes_max: int) -> tuple[list[str], int]:
        """Return the texts of the events that begin here and are alike, and where the next one begins."""
        if not stream.startswith(self._before, start):
            return [], start
        # The last piece has not come to its end.
        events = bytes(memoryview(stream)[start:]).split(_END)[:-1]
        around = len(self._before) + len(self._behind)
        texts = _literal(self._texts(events), min(TEXT_BYTES_MAX, event_bytes_max - around))
        end = start + sum(map(len, texts)) + around * len(texts)
        return (_SEPARATOR.join(texts).decode("utf-8", "replace").split("\0") if texts else []), end

    def _texts(self, events: list[bytes]) -> list[bytes]:
        """Return what stands in the place of the text in each event, up to the first that is not alike."""
        behind = self._behind.removesuffix(_END)
        around = len(self._before) + len(behind)

        def is_alike(event: bytes) -> bool:
            return len(event) >= around and event.startswith(self._before) and event.endswith(behind)

        while events and not is_alike(events[-1]):
            events.pop()
        texts = [event[len(self._before) : len(event) - len(behind)] for event in events]
        # Putting all together again shows at once whether all are alike, as they nearly always are.
        if self._before + (self._behind + self._before).join(texts) + behind != _END.join(events):
            texts = texts[: sum(1 for _ in takewhile(is_alike, events))]
        return texts


def alike(raw: bytes, text: str) -> Alike | None:
    """Make the pattern of a parsed event whose only text is this one; `None` where it cannot be told."""
    # Without escapes, a text that is there once in quotes is the one that was read.
    quoted = b'"' + text.encode("utf-8", "surrogatepass") + b'"'
    if b"\\" in raw or raw.count(quoted) != 1:
        return None
    before, _, behind = raw.partition(quoted)
    return Alike(before + b'"', b'"' + behind)


def _literal(texts: list[bytes], bytes_max: int) -> list[bytes]:
    """Return the texts up to the first that is more than a text, or too long."""
    if max(map(len, texts), default=0) <= bytes_max and _LITERAL.fullmatch(b"".join(texts)):
        return texts
    for at, text in enumerate(texts):
        if len(text) > bytes_max or not _LITERAL.fullmatch(text):
            return texts[:at]
    return texts
