"""Keys are made from the given randomness alone, recognised by shape, and stored as digests."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.keys import (
    ALPHABET,
    PUBLIC_ID_LENGTH,
    SECRET_LENGTH,
    Choose,
    Grant,
    digest,
    mint,
    mint_id,
    well_formed,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
PEPPER = b"p" * 32
GOOD = f"mtr_{'a' * PUBLIC_ID_LENGTH}_{'Z' * SECRET_LENGTH}"


def chooser(picks: Iterator[int], asked: list[str]) -> Choose:
    """Make a `choose` that picks by these numbers and notes what it was asked."""

    def choose(characters: str) -> str:
        asked.append(characters)
        return characters[next(picks) % len(characters)]

    return choose


def test_a_secret_carries_256_bits() -> None:
    """The secret's alphabet to the power of its length is at least 2^256, without a character twice."""
    assert len(set(ALPHABET)) == len(ALPHABET)
    assert len(ALPHABET) ** SECRET_LENGTH >= 2**256


@given(st.lists(st.integers(0, 61), min_size=55, max_size=55))
def test_a_key_is_made_of_the_given_randomness_alone(picks: list[int]) -> None:
    """Every character of a key is one pick from the whole alphabet, and nothing else is in it."""
    asked: list[str] = []

    public_id, key = mint(chooser(iter(picks), asked))

    characters = "".join(ALPHABET[pick] for pick in picks)
    assert asked == [ALPHABET] * 55
    assert public_id == characters[:PUBLIC_ID_LENGTH]
    assert key == f"mtr_{public_id}_{characters[PUBLIC_ID_LENGTH:]}"
    assert well_formed(key)


def test_an_id_is_made_of_the_given_randomness_alone() -> None:
    """A public id takes twelve picks."""
    asked: list[str] = []

    public_id = mint_id(chooser(iter(range(100)), asked))

    assert public_id == ALPHABET[:PUBLIC_ID_LENGTH]
    assert len(asked) == PUBLIC_ID_LENGTH


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (GOOD, True),
        ("", False),
        (GOOD[:-1], False),
        (GOOD + "Z", False),
        (GOOD + "\n", False),
        (" " + GOOD, False),
        (GOOD.replace("mtr_", "sk-", 1), False),
        (GOOD.replace("mtr_", "MTR_", 1), False),
        (GOOD.replace("Z", "_", 1), False),
        (GOOD.replace("Z", "-", 1), False),
        (GOOD.replace("a", "\u0661", 1), False),
        (GOOD.replace("a", "\uff41", 1), False),
        (GOOD.replace("a", "\0", 1), False),
    ],
)
def test_a_key_is_recognised_by_its_shape(key: str, good: bool) -> None:
    """Only the exact shape, in ASCII letters and digits, is ever looked up."""
    assert well_formed(key) is good


def test_a_digest_is_an_hmac_under_the_pepper() -> None:
    """A key is stored as HMAC-SHA256 under the pepper, not as a bare hash."""
    expected = hmac.new(PEPPER, GOOD.encode(), hashlib.sha256).digest()

    assert digest(GOOD, PEPPER) == expected
    assert digest(GOOD, PEPPER) != hashlib.sha256(GOOD.encode()).digest()


def test_a_digest_differs_by_pepper_and_by_key() -> None:
    """Another pepper or another key is another digest."""
    digests = {digest(key, pepper) for key in (GOOD, GOOD[:-1] + "Y") for pepper in (PEPPER, b"q" * 32)}

    assert len(digests) == 4


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "valid"),
    [
        (None, None, True),
        (NOW + INSTANT, None, True),
        (NOW, None, False),
        (NOW - INSTANT, None, False),
        (None, NOW + INSTANT, True),
        (None, NOW, False),
        (None, NOW - INSTANT, False),
        (NOW + INSTANT, NOW, False),
        (NOW, NOW + INSTANT, False),
    ],
)
def test_a_grant_ends_at_the_very_instant(
    expires_at: datetime | None, revoked_at: datetime | None, valid: bool
) -> None:
    """A key may be used up to, and not at, the instant of its expiry or revocation."""
    grant = Grant("id", "name", "team", "Team", expires_at=expires_at, revoked_at=revoked_at)

    assert grant.valid_at(NOW) is valid


def test_a_public_id_names_the_key_in_its_middle() -> None:
    """The public id is the middle part of the key, so that logs can name a key without showing it."""
    public_id, key = mint(chooser(iter(range(100)), []))

    assert re.fullmatch(r"mtr_(\w{12})_\w{43}", key, re.ASCII)
    assert key.split("_")[1] == public_id
