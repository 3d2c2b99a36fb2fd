"""Keys in the database: found by digest, shown without secrets, ended once."""

import hashlib
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.keys import Grant, Key, Minting, digest, well_formed
from meter.store import keys, teams
from meter.store.database import Database, RowRefused
from meter.store.tables import api_keys
from tests.store.conftest import NOW

PEPPER = b"a pepper that is kept outside the database"
LATER = NOW + timedelta(hours=1)
BY = Signature("test", NOW)


def issue(
    database: Database, seed: int = 1, *, team: str = "search", name: str | None = "ci", age_minutes: int = 0
) -> tuple[Key, str]:
    """Make a key, for a team that is made on first use; the same seed makes the same key."""
    if team not in {known.name for known in teams.list_all(database)}:
        teams.create(database, team_id=f"id-{team}", name=team, by=BY)
    minting = Minting(Random(seed).choice, PEPPER)
    by = Signature("test", NOW - timedelta(minutes=age_minutes))
    return keys.issue(database, team=team, name=name, expires_at=None, minting=minting, by=by)


def test_a_key_grants_by_its_digest(database: Database) -> None:
    """The digest of a new key finds what its holder may do."""
    key, secret = issue(database)

    grant = keys.find_grant(database, digest(secret, PEPPER))

    assert well_formed(secret)
    assert secret.split("_")[1] == key.id
    assert grant == Grant(key.id, "ci", "id-search", "search")


@pytest.mark.parametrize("wrong", ["another key", "another pepper", "a plain hash", "nothing"])
def test_nothing_else_grants(database: Database, wrong: str) -> None:
    """Another key, another pepper or a hash without one find nothing."""
    _, secret = issue(database)
    digests = {
        "another key": digest(secret[:-1] + "_", PEPPER),
        "another pepper": digest(secret, b"another pepper"),
        "a plain hash": hashlib.sha256(secret.encode()).digest(),
        "nothing": b"",
    }

    assert keys.find_grant(database, digests[wrong]) is None


def test_no_secret_is_stored(sqlite_database: Database, tmp_path: Path) -> None:
    """Neither a key, nor its secret part, nor a hash that could be tested without the pepper is on disk."""
    _, secret = issue(sqlite_database)
    last = secret.split("_")[2]
    hashed = hashlib.sha256(secret.encode()).digest()
    hashed_last = hashlib.sha256(last.encode()).digest()

    before = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    sqlite_database.checkpoint()
    after = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    for stored in (before, after):
        assert digest(secret, PEPPER) in stored
        for forbidden in (secret, last, last[:12], hashed.hex(), hashed_last.hex()):
            assert forbidden.encode() not in stored
        for forbidden_bytes in (hashed, hashed_last, PEPPER):
            assert forbidden_bytes not in stored


def test_a_key_without_a_name_is_named_by_its_id(database: Database) -> None:
    """Reports can name every key."""
    key, _ = issue(database, name=None)

    assert key.name == key.id


def test_a_key_needs_a_team(database: Database) -> None:
    """A key for a team that is not there is refused, and none is made."""
    minting = Minting(Random(1).choice, PEPPER)

    with pytest.raises(NotFound):
        keys.issue(database, team="nobody", name="ci", expires_at=None, minting=minting, by=BY)

    assert keys.list_all(database) == []


def test_a_team_may_be_named_by_its_id(database: Database) -> None:
    """A key can be made for a team by the team's id."""
    teams.create(database, team_id="abc", name="search", by=BY)
    minting = Minting(Random(1).choice, PEPPER)

    key, _ = keys.issue(database, team="abc", name="ci", expires_at=LATER, minting=minting, by=BY)

    assert (key.team_id, key.team, key.expires_at) == ("abc", "search", LATER)
    assert keys.find(database, key.id) == key


def test_a_key_is_found_by_id_and_by_name(database: Database) -> None:
    """A key is found, as it is shown, by either."""
    key, _ = issue(database)

    assert keys.find(database, key.id) == key
    assert keys.find(database, "ci") == key


def test_a_name_of_several_keys_is_ambiguous(database: Database) -> None:
    """A name that several keys in use have names none of them."""
    first, _ = issue(database, 1)
    issue(database, 2, team="other")

    with pytest.raises(Conflict, match="give the id"):
        keys.find(database, "ci")
    with pytest.raises(Conflict):
        keys.revoke(database, "ci", BY)

    assert keys.find(database, first.id) == first


def test_a_name_means_the_key_that_is_in_use(database: Database) -> None:
    """Once a key has ended, its name is free for another one."""
    first, _ = issue(database, 1)
    keys.revoke(database, first.id, BY)

    second, _ = issue(database, 2)

    assert keys.find(database, "ci") == second


@pytest.mark.parametrize("reference", ["", "nobody", "c%"])
def test_an_unknown_key_is_not_found(database: Database, reference: str) -> None:
    """A reference that means no key is refused."""
    issue(database)

    with pytest.raises(NotFound):
        keys.find(database, reference)
    with pytest.raises(NotFound):
        keys.revoke(database, reference, BY)


def test_a_revoked_key_keeps_its_first_end(database: Database) -> None:
    """Ending a key twice leaves the time of the first."""
    key, secret = issue(database)

    first = keys.revoke(database, key.id, BY)
    second = keys.revoke(database, key.id, Signature("test", LATER))

    assert first.revoked_at == NOW
    assert second == first
    grant = keys.find_grant(database, digest(secret, PEPPER))
    assert grant is not None
    assert not grant.valid_at(NOW)


def test_revoking_one_key_leaves_the_others(database: Database) -> None:
    """Only the named key ends."""
    first, _ = issue(database, 1, name="one")
    _, other = issue(database, 2, name="two")

    keys.revoke(database, first.id, BY)

    grant = keys.find_grant(database, digest(other, PEPPER))
    assert grant is not None
    assert grant.valid_at(LATER)


def test_keys_are_listed_oldest_first(database: Database) -> None:
    """The list is in the order of the making, of one team or of all."""
    issue(database, 1, name="new")
    issue(database, 2, name="old", age_minutes=60)
    issue(database, 3, team="other", name="middle", age_minutes=30)

    assert [key.name for key in keys.list_all(database)] == ["old", "middle", "new"]
    assert [key.name for key in keys.list_all(database, team_id="id-search")] == ["old", "new"]
    assert keys.list_all(database, team_id="nobody") == []


def test_a_stream_usage_of_the_keys_own_is_granted(database: Database) -> None:
    """What a key says about streams reaches the data plane."""
    key, secret = issue(database)
    with database.write() as connection:
        connection.execute(sa.update(api_keys).where(api_keys.c.id == key.id).values(stream_usage="observe"))

    grant = keys.find_grant(database, digest(secret, PEPPER))

    assert grant is not None
    assert grant.stream_usage == "observe"


def test_two_keys_of_the_same_randomness_are_refused(database: Database) -> None:
    """An id or a digest that is there already never becomes a second key."""
    issue(database, 1)

    with pytest.raises(RowRefused):
        issue(database, 1)

    assert len(keys.list_all(database)) == 1
