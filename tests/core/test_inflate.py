"""Compressed bodies are inflated in any pieces, within bounds."""

import gzip
import zlib

import pytest

from meter.core.inflate import Inflater

TEXT = b"It was a bright cold day in April. " * 5000
RAW = zlib.compressobj(wbits=-15)
CODINGS = {
    "gzip": gzip.compress(TEXT),
    "two members": gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
    "padding behind": gzip.compress(TEXT) + b"\0" * 20,
    "zlib": zlib.compress(TEXT),
    "raw deflate": RAW.compress(TEXT) + RAW.flush(),
}


def inflate(inflater: Inflater, data: bytes, size: int) -> bytes:
    """Feed data in pieces of a size."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(found for piece in pieces for found in inflater.pieces(piece))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 3, 100, 10**6])
def test_any_pieces_give_the_same(coding: str, size: int) -> None:
    """However the compressed bytes are cut, the text is the same."""
    inflater = Inflater(len(TEXT))

    assert inflate(inflater, CODINGS[coding], size) == TEXT
    assert inflater.fault is None


def test_a_bomb_is_stopped() -> None:
    """What inflates past the bound stops there, at most one piece later."""
    inflater = Inflater(100_000)

    found = inflate(inflater, gzip.compress(b"\0" * 10**8), 10**6)

    assert inflater.fault == "body_too_large"
    assert len(found) <= 100_000 + 64 * 1024


def test_many_empty_members_are_stopped() -> None:
    """Thousands of empty members cost time and give nothing, so they are bounded."""
    inflater = Inflater(100_000)

    inflate(inflater, gzip.compress(b"") * 5000, 10**6)

    assert inflater.fault == "body_too_large"


def test_damage_is_named() -> None:
    """A body that is no gzip behind its first bytes is corrupt, and nothing more is read of it."""
    inflater = Inflater(100_000)

    found = inflate(inflater, gzip.compress(b"")[:10] + b"\xff" * 100, 50)

    assert (found, inflater.fault) == (b"", "corrupt_encoding")
