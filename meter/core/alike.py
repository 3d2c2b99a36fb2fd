"""Streams repeat themselves: most events are the one before, to the byte, with another piece of text in it.

Such events say nothing new but their text, so that whoever has read one need not parse the others.
"""

import re

# Longer pieces of text are parsed like everything else.
TEXT_BYTES_MAX = 4096

# What stands for itself in a JSON string.
_LITERAL = re.compile(rb'[^"\\\x00-\x1f]*')


class Alike:
    """Events as one that was read: the same bytes before and behind a text."""

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._behind = behind
        self._between = behind + before

    def run(self, stream: bytearray, start: int, event_bytes_max: int) -> tuple[list[bytes], int]:
        """Return the texts of the events that begin here and are alike, and where the next one begins."""
        if not stream.startswith(self._before, start):
            return [], start
        texts = bytes(stream[start + len(self._before) :]).split(self._between)
        # The last one is followed by something else, or has not come to its end.
        text, behind, _ = texts.pop().partition(self._behind)
        if behind:
            texts.append(text)
        around = len(self._before) + len(self._behind)
        texts = _literal(texts, min(TEXT_BYTES_MAX, event_bytes_max - around))
        return texts, start + sum(map(len, texts)) + around * len(texts)


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
