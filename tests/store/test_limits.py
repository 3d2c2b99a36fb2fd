"""Limits in the database: what is given is set, for a key and for its team, and what is not stays."""

from random import Random

import pytest

from meter.core.audit import Signature
from meter.core.errors import NotFound
from meter.core.keys import Grant, Minting, digest
from meter.core.limits import Limits
from meter.store import keys, teams
from meter.store.database import Database
from tests.store.conftest import NOW

BY = Signature("test", NOW)
PEPPER = b"a pepper that is kept outside the database"


def granted(database: Database, secret: str) -> Grant:
    """Return what a key grants, which is also what the snapshot has."""
    grant = keys.find_grant(database, digest(secret, PEPPER))
    assert grant is not None
    assert keys.snapshot(database, NOW).grants[digest(secret, PEPPER)] == grant
    return grant


def test_a_grant_has_the_limits_of_the_key_and_of_its_team(database: Database) -> None:
    """What one change does not give stays, null takes a limit back, and the other team keeps its own."""
    teams.create(database, team_id="t1", name="search", by=BY)
    teams.create(database, team_id="t2", name="other", by=BY)
    minting = Minting(Random(1).choice, PEPPER)
    key, secret = keys.issue(database, team="search", name="ci", expires_at=None, minting=minting, by=BY)
    assert granted(database, secret).limits == granted(database, secret).team_limits == Limits()

    keys.change(database, key.id, {"models": ("a", "b/*"), "rpm": 10, "tpm": 10**12}, BY)
    changed = keys.change(database, key.id, {"rpm": None, "concurrency": 0}, BY)
    team = teams.change(database, "search", {"models": ("c",), "tpm": 5}, BY)
    teams.change(database, "other", {"rpm": 1}, BY)

    assert granted(database, secret).limits == Limits(models=("a", "b/*"), tpm=10**12, concurrency=0)
    assert granted(database, secret).team_limits == Limits(models=("c",), tpm=5)
    assert changed == keys.find(database, key.id)
    assert team in teams.list_all(database)
    assert changed.limits == granted(database, secret).limits
    assert team.limits == granted(database, secret).team_limits


def test_a_list_of_models_that_is_taken_back_is_none(database: Database) -> None:
    """NULL is stored, not JSON's null, so that SQL can tell."""
    teams.create(database, team_id="t1", name="search", by=BY)
    teams.change(database, "t1", {"models": ("a",)}, BY)

    teams.change(database, "t1", {"models": None}, BY)

    with database.read() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM teams WHERE models IS NULL").scalar()
    assert kept == 1


def test_a_change_of_nothing_changes_nothing(database: Database) -> None:
    """An empty change returns the team as it is, and a team that is not there is not found."""
    team = teams.create(database, team_id="t1", name="search", by=BY)

    assert teams.change(database, "search", {}, BY) == team
    with pytest.raises(NotFound):
        teams.change(database, "nobody", {"rpm": 1}, BY)
