"""Streams repeat themselves: most events are the one before, to the byte, with another piece of text in it.

Such events say nothing new but their text, so that whoever has read one need not parse the others.
"""

import re

# Longer pieces of text are parsed like everything else.
TEXT_BYTES_MAX = 4096

# What no literal text has in it.
_SEPARATOR = b"\0"
# What stands for itself in a JSON string.
_LITERAL = re.compile(rb'[^"\\\x00-\x1f]*')


class Alike:
    """Events that are one that was read: the same bytes before and behind a text."""

    __slots__ = ("_around", "_before", "_behind", "_between")

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._behind = behind
        self._between = behind + before
        self._around = len(before) + len(behind)

    def text_of(self, event: bytes, event_bytes_max: int) -> str | None:
        """Return the text of what is one event and alike; `None` for everything else."""
        if not event.startswith(self._before) or not event.endswith(self._behind):
            return None
        length = len(event) - self._around
        if not 0 <= length <= self._longest(event_bytes_max):
            return None
        start = len(self._before)
        text = event[start : start + length]
        return text.decode("utf-8", "replace") if _LITERAL.fullmatch(text) else None

    def run(self, stream: bytes | bytearray, start: int, event_bytes_max: int) -> tuple[list[str], int]:
        """Return the texts of the events that begin here and are alike, and where the next one begins."""
        if not stream.startswith(self._before, start):
            return [], start
        pieces = bytes(memoryview(stream)[start + len(self._before) :]).split(self._between)
        longest = self._longest(event_bytes_max)
        texts = _literal(pieces[:-1], longest)
        # Something else stands behind the text of the last piece, or of the first that is more than a text.
        text, whole, _ = pieces[len(texts)].partition(self._behind)
        if whole:
            texts += _literal([text], longest)
        if not texts:
            return [], start
        joined = _SEPARATOR.join(texts)
        end = start + len(joined) + self._around * len(texts) - len(_SEPARATOR) * (len(texts) - 1)
        return joined.decode("utf-8", "replace").split("\0"), end

    def _longest(self, event_bytes_max: int) -> int:
        return min(TEXT_BYTES_MAX, event_bytes_max - self._around)


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
