"""Tokens: made, recognised, and never taken for keys."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from meter.core import keys
from meter.core.access import Asker, Role
from meter.core.tokens import Terms, Token, checked, digest, mint, well_formed

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PEPPER = b"a pepper that is kept outside the database"


def test_a_token_names_its_public_id() -> None:
    """A token has its shape and carries its id; two are never the same."""
    public_id, token = mint(Random(1).choice)

    assert well_formed(token)
    assert token.split("_") == ["mta", public_id, token[-43:]]
    assert token != mint(Random(2).choice)[1]


def test_a_key_is_no_token() -> None:
    """A key has another shape, and the same characters have another digest."""
    _, key = keys.mint(Random(1).choice)
    _, token = mint(Random(1).choice)

    assert not well_formed(key)
    assert not keys.well_formed(token)
    assert digest(token, PEPPER) != keys.digest(token, PEPPER)
    assert digest(key, PEPPER) != keys.digest(key, PEPPER)


@pytest.mark.parametrize(
    "text", ["", "mta_", "mta_a_b", f"mta_{'a' * 12}_{'a' * 42}", f"mta_{'é' * 12}_{'a' * 43}"]
)
def test_other_shapes_are_no_tokens(text: str) -> None:
    """Whatever is shorter or of other characters is never looked up."""
    assert not well_formed(text)


def test_a_token_ends_at_its_instant() -> None:
    """A token works until the instant of its expiry or of its revocation, not at it."""
    token = Token(id="a", role=Role.VIEWER, name="n", team_id="t", created_at=NOW, expires_at=NOW)

    assert token.valid_at(NOW - timedelta(microseconds=1))
    assert not token.valid_at(NOW)
    assert token.asker == Asker(Role.VIEWER, "a", "n", "t")


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        (Terms(Role.ADMIN, "search"), "'team' is for viewers"),
        (Terms(Role.METRICS, "search"), "'team' is for viewers"),
        (Terms(Role.ADMIN, name="a\nb"), "printable"),
        (Terms(Role.ADMIN, expires_at=NOW), "'expires_at'"),
        (Terms(Role.ADMIN, expires_at=datetime(2027, 1, 1)), "'expires_at'"),  # noqa: DTZ001 (the fault)
    ],
)
def test_terms_that_make_no_sense_are_refused(terms: Terms, fault: str) -> None:
    """What no token can be made for is refused by name."""
    with pytest.raises(ValueError, match=fault):
        checked(terms, NOW)


def test_good_terms_lose_their_blanks() -> None:
    """A name is kept without the blanks around it."""
    terms = Terms(Role.VIEWER, "search", " lead ", NOW + timedelta(days=1))

    assert checked(terms, NOW) == terms._replace(name="lead")
