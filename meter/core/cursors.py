"""Where a page of a list ended, as a text that its reader hands back unread."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

CURSOR_LENGTH_MAX = 512

T = TypeVar("T")


def encode(position: object) -> str:
    """Write down a position."""
    return urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode(text: str, kind: type[T]) -> T:
    """Read a position; raises `ValueError` for what `encode` never wrote."""
    padded = text[:CURSOR_LENGTH_MAX] + "=" * (-len(text) % 4)
    try:
        return msgspec.json.decode(urlsafe_b64decode(padded.encode("ascii")), type=kind)
    except ValueError:
        raise ValueError("'cursor' is none that a page of this list ended with") from None
