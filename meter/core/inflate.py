"""Undoes the compression of a response, for a reader that stands beside it.

What a gzip of a few kilobytes inflates to is the sender's choice, so it is inflated in small pieces and up to
a bound.
"""

import zlib
from collections.abc import Iterator

# Data is cut into such pieces when it is inflated, so that a bomb goes off in small parts.
_PIECE_BYTES = 64 * 1024
_GZIP_MEMBERS_MAX = 1000
_GZIP_MAGIC = b"\x1f\x8b"


class Inflater:
    """Undoes gzip or deflate in pieces, up to a bound; `fault` says why it stopped."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max
        self._members = 0
        self._unread = b""
        self._member: zlib._Decompress | None = None
        self.fault: str | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes inflate to, in pieces of at most 64 KiB."""
        self._unread += data
        full = False
        while self.fault is None and (full or self._unread) and (member := self._current()) is not None:
            piece = self._next_piece(member)
            full = len(piece) == _PIECE_BYTES
            yield piece

    def _current(self) -> "zlib._Decompress | None":
        """Return the member that is being read; gzip may have several, one after the other."""
        if self._member is None and len(self._unread) >= len(_GZIP_MAGIC):
            if self._members and not self._unread.startswith(_GZIP_MAGIC):
                # Padding behind the end, which every reader of gzip ignores.
                self._unread = b""
                return None
            self._members += 1
            self._member = zlib.decompressobj(_window_bits(self._unread))
        return self._member

    def _next_piece(self, member: "zlib._Decompress") -> bytes:
        try:
            piece = member.decompress(self._unread, _PIECE_BYTES)
        except zlib.error:
            self.fault = "corrupt_encoding"
            return b""
        self._unread = member.unconsumed_tail
        if member.eof:
            self._unread, self._member = member.unused_data, None
        self._bytes_left -= len(piece)
        if self._bytes_left < 0 or self._members > _GZIP_MEMBERS_MAX:
            self.fault = "body_too_large"
        return piece


def _window_bits(start: bytes) -> int:
    """Tell gzip and zlib from raw deflate: `deflate` means either of the latter two on the wire."""
    is_zlib = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2], "big") % 31 == 0
    return zlib.MAX_WBITS | 32 if is_zlib or start.startswith(_GZIP_MAGIC) else -zlib.MAX_WBITS
