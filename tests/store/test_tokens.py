"""Tokens in the database: found by digest, ended once, and written down."""

from datetime import timedelta
from random import Random

import pytest

from meter.core import keys as core_keys
from meter.core.access import Role
from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.keys import Minting
from meter.core.tokens import Terms, Token, digest
from meter.store import audit, keys, teams, tokens
from meter.store.database import Database
from tests.store.conftest import NOW

PEPPER = b"a pepper that is kept outside the database"
BY = Signature("test", NOW)
LATER = Signature("later", NOW + timedelta(hours=1))


def issue(database: Database, seed: int = 1, terms: Terms | None = None) -> tuple[Token, str]:
    """Make a token; the same seed makes the same one."""
    minting = Minting(Random(seed).choice, PEPPER)
    return tokens.issue(database, terms or Terms(Role.ADMIN, name="ci"), minting=minting, by=BY)


def test_a_token_is_found_by_its_digest(database: Database) -> None:
    """The digest of a token finds it, with its team."""
    team = teams.create(database, team_id="id-search", name="search", by=BY)
    token, secret = issue(database, terms=Terms(Role.VIEWER, "search", "lead", LATER.at))

    assert tokens.find(database, digest(secret, PEPPER)) == token
    assert (token.role, token.team_id, token.team) == (Role.VIEWER, team.id, "search")
    assert tokens.list_all(database) == [token]


def test_keys_and_tokens_are_never_each_other(database: Database) -> None:
    """Neither a key's digest finds a token, nor a token's a key, whichever way it is hashed."""
    teams.create(database, team_id="id-search", name="search", by=BY)
    _, secret = issue(database)
    minting = Minting(Random(2).choice, PEPPER)
    _, key = keys.issue(database, team="search", name=None, expires_at=None, minting=minting, by=BY)

    for text in (secret, key):
        hashed = (digest(text, PEPPER), core_keys.digest(text, PEPPER))
        assert [tokens.find(database, each) is not None for each in hashed] == [text == secret, False]
        assert [keys.find_grant(database, each) is not None for each in hashed] == [False, text == key]


def test_a_token_is_revoked_once(database: Database) -> None:
    """The first end counts, by name or id, and is written down once."""
    token, _ = issue(database)

    first = tokens.revoke(database, "ci", BY)
    second = tokens.revoke(database, token.id, LATER)

    assert first == second
    assert first.revoked_at == NOW
    assert [entry.action for entry in audit.page(database, limit=9)] == ["token.revoke", "token.create"]


def test_a_name_must_mean_one_token(database: Database) -> None:
    """A name that two tokens have, or none, revokes nothing."""
    issue(database, 1)
    issue(database, 2)

    with pytest.raises(Conflict):
        tokens.revoke(database, "ci", BY)
    with pytest.raises(NotFound):
        tokens.revoke(database, "nobody", BY)
    assert all(token.revoked_at is None for token in tokens.list_all(database))


def test_the_audit_log_has_no_secret(database: Database) -> None:
    """What is written down of a token is what it is for."""
    token, secret = issue(database)

    (entry,) = audit.page(database, limit=9)

    assert (entry.actor, entry.at, entry.target) == ("test", NOW, token.id)
    assert entry.details == {"role": "admin", "name": "ci", "team": None, "expires_at": None}
    assert secret.split("_")[2] not in repr(entry)
