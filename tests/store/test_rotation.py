"""Rotating a key: a successor with the same settings, and a grace for the old one."""

from datetime import datetime, timedelta
from random import Random

import pytest
import sqlalchemy as sa

from meter.app.budgets import put
from meter.core.audit import Signature
from meter.core.budget_drafts import Draft, applying
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.errors import Conflict
from meter.core.keys import Key, Minting, digest
from meter.store import audit, budgets, keys, ledger, teams
from meter.store.database import Database
from meter.store.tables import api_keys
from tests.store.conftest import NOW, make_event, new_event_id

PEPPER = b"a pepper that is kept outside the database"
BY = Signature("test", NOW)
DAY = timedelta(days=1)


def issue(database: Database, expires_at: datetime | None = None, name: str | None = "ci") -> tuple[Key, str]:
    """Make a key of the team `search`."""
    if not teams.list_all(database):
        teams.create(database, team_id="id-search", name="search", by=BY)
    minting = Minting(Random(1).choice, PEPPER)
    return keys.issue(database, team="search", name=name, expires_at=expires_at, minting=minting, by=BY)


def rotate(
    database: Database, reference: str, *, seed: int = 2, at: datetime = NOW, grace: timedelta = DAY
) -> tuple[Key, str]:
    """Rotate a key."""
    minting = Minting(Random(seed).choice, PEPPER)
    return keys.rotate(database, reference, grace=grace, minting=minting, by=Signature("test", at))


def use(database: Database, key: Key, tokens: int) -> None:
    """Put an event of a key into the ledger."""
    event = make_event(
        new_event_id(Random(tokens)),
        key_id=key.id,
        team_id=key.team_id,
        prompt_tokens=tokens,
        completion_tokens=0,
    )
    assert ledger.append(database, [event], NOW) == 1


def test_both_keys_work_until_the_grace_ends(database: Database) -> None:
    """The old key works until the grace ends, the new one from now on, for the same team and name."""
    old, old_secret = issue(database)

    new, new_secret = rotate(database, "ci")

    grants = [keys.find_grant(database, digest(secret, PEPPER)) for secret in (old_secret, new_secret)]
    assert [grant.valid_at(NOW + DAY - timedelta(seconds=1)) for grant in grants if grant] == [True, True]
    assert [grant.valid_at(NOW + DAY) for grant in grants if grant] == [False, True]
    assert (new.name, new.team_id, new.rotated_from) == (old.name, old.team_id, old.id)
    assert new.id != old.id


@pytest.mark.parametrize(
    ("lifetime", "grace", "old_ends", "new_ends"),
    [
        (None, DAY, DAY, None),
        (None, timedelta(), timedelta(), None),
        (90 * DAY, DAY, DAY, 90 * DAY),
        # The grace never makes a key last longer.
        (timedelta(hours=1), DAY, timedelta(hours=1), timedelta(hours=1)),
    ],
)
def test_how_long_both_last(
    database: Database,
    lifetime: timedelta | None,
    grace: timedelta,
    old_ends: timedelta,
    new_ends: timedelta | None,
) -> None:
    """The successor lasts as long as the key was made for; the key ends with the grace, or before."""
    old, _ = issue(database, None if lifetime is None else NOW + lifetime)

    new, _ = rotate(database, old.id, grace=grace)

    assert keys.find(database, old.id).expires_at == NOW + old_ends
    assert new.expires_at == (None if new_ends is None else NOW + new_ends)


def test_every_setting_is_taken_over(database: Database) -> None:
    """All columns but those that make it another key are those of the old one, also ones to come."""
    old, _ = issue(database)
    keys.change(database, old.id, {"stream_usage": "observe", "rpm": 7}, BY)
    new, _ = rotate(database, old.id)

    with database.read() as connection:
        rows = {row["id"]: dict(row) for row in connection.execute(sa.select(api_keys)).mappings()}

    differing = {name for name in rows[old.id] if rows[old.id][name] != rows[new.id][name]}
    assert differing <= {"id", "digest", "created_at", "expires_at", "rotated_from", "first_id"}
    assert new.stream_usage == "observe"


def test_all_keys_of_a_line_use_one_budget(database: Database) -> None:
    """What a key and its successors use counts in the same budget, so that rotating is no way around it."""
    old, _ = issue(database)
    budget = Budget(
        id="b",
        owner_kind=OwnerKind.KEY,
        owner_id=old.id,
        measure=Measure.TOKENS,
        period="month",
        limit=1000,
        enforcement=Enforcement.STRICT,
    )
    budgets.put(database, budget, BY)
    second, _ = rotate(database, "ci")
    third, secret = rotate(database, "ci", seed=3)

    for number, key in enumerate((old, second, third)):
        use(database, key, 10**number)

    [standing] = budgets.standings(database, NOW)
    assert (standing.spent, standing.budget.owner) == (111, "ci")
    assert standing.budget.successors == (second.id, third.id)
    grant = keys.find_grant(database, digest(secret, PEPPER))
    assert grant is not None
    assert applying([standing], grant) == [standing]
    assert ledger.verify(database) == []


def test_a_budget_of_a_successor_is_its_lines(database: Database) -> None:
    """A budget that is made after a rotation begins with what all keys of the line have spent."""
    old, _ = issue(database)
    use(database, old, 7)
    new, _ = rotate(database, "ci")

    made = put(database, "tester", Draft(limit="1000", period="total", key=new.id, measure="tokens"))

    assert made.spent == "7"
    assert ledger.verify(database) == []


def test_a_key_is_rotated_once(database: Database) -> None:
    """A key that was rotated or has ended has no second successor, and nothing changes."""
    old, _ = issue(database)
    new, _ = rotate(database, old.id)
    ended = keys.revoke(database, new.id, BY)

    for reference in (old.id, ended.id):
        with pytest.raises(Conflict):
            rotate(database, reference, seed=3)
    assert len(keys.list_all(database)) == 2


def test_a_name_means_the_newest_of_a_line(database: Database) -> None:
    """After rotations a name is the last successor's; a key that was named by its id stays so."""
    issue(database)
    second, _ = rotate(database, "ci")
    third, _ = rotate(database, "ci", seed=3)

    assert keys.find(database, "ci") == third
    assert third.rotated_from == second.id


def test_a_key_named_by_its_id_is_so_again(database: Database) -> None:
    """The successor of a key without a name is named by its own id."""
    old, _ = issue(database, name=None)

    new, _ = rotate(database, old.id)

    assert new.name == new.id


def test_when_the_successor_is_revoked_the_name_is_the_old_keys(database: Database) -> None:
    """A rotation that was taken back leaves the old key its name, for as long as it lasts."""
    old, _ = issue(database)
    new, _ = rotate(database, "ci")
    keys.revoke(database, new.id, BY)

    assert keys.find(database, "ci").id == old.id


def test_a_rotation_is_written_down_without_secrets(database: Database) -> None:
    """The audit log names both keys and when the old one ends."""
    old, _ = issue(database)
    new, secret = rotate(database, "ci")

    entry = audit.page(database, limit=1)[0]

    assert (entry.action, entry.target, entry.details["successor"]) == ("key.rotate", old.id, new.id)
    assert secret.split("_")[2] not in repr(entry)
