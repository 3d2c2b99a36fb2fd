"""Cursors come back as they went."""

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from meter.core.cursors import decode, encode


class Position(NamedTuple):
    """Where a page of the tests ended."""

    at: datetime
    id: str


AT = datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_cursor_comes_back() -> None:
    """A position is read as it was written, and its text fits a URL as it is."""
    position = Position(AT, "an id")
    text = encode(position)

    assert decode(text, Position) == position
    assert decode(encode(7), int) == 7
    assert text.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("text", ["", "x", "é", "\x00", "!!!!", encode("x"), encode((1, 2)), "A" * 513])
def test_another_text_is_refused(text: str) -> None:
    """What no page ended with is refused by name, whatever it is."""
    with pytest.raises(ValueError, match="'cursor'"):
        decode(text, Position)
