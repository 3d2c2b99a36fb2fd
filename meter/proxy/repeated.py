"""Heads that repeat: what follows on a connection mostly begins with the very bytes of the request before.

All but the length of the body, that is. Such a head need not be parsed again, because every parser, those
behind meter too, reads the same bytes alike.
"""

import re

from meter.proxy.opening import Opening

# Those of the largest body that is taken on.
_DIGITS_MAX = 6
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)


class Repeated:
    """A head that was parsed, without the digits of its length, and what was read of it."""

    __slots__ = ("_before", "_behind", "keep_alive", "opening", "url")

    def __init__(
        self, before: bytes, behind: bytes, *, url: bytes, opening: Opening, keep_alive: bool
    ) -> None:
        self._before = before
        self._behind = behind
        self.url = url
        self.opening = opening
        self.keep_alive = keep_alive

    def find(self, data: bytes) -> tuple[int, int] | None:
        """Return where the body begins and how long it is; `None` where the head is another, or not here."""
        if not data.startswith(self._before):
            return None
        start = len(self._before)
        end = data.find(b"\r", start, start + _DIGITS_MAX + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._behind, end):
            return None
        return end + len(self._behind), int(digits)


def repeated(data: bytes, headers: int, *, url: bytes, opening: Opening, keep_alive: bool) -> Repeated | None:
    """Remember the head that data begins with, of which a parser has read so many headers.

    `None` where the head is not here as a whole, or its lines are not the ones that the parser has read.
    """
    head = data[: data.find(_HEAD_END) + len(_HEAD_END)]
    lengths = list(_LENGTH.finditer(head))
    lines = headers + 2
    if len(lengths) != 1 or head.count(b"\r\n") != lines or head.count(b"\n") != lines:
        return None
    start, end = lengths[0].span(1)
    return Repeated(head[:start], head[end:], url=url, opening=opening, keep_alive=keep_alive)
