"""The pepper belongs to the database whose keys were made under it."""

import threading

import pytest
import sqlalchemy as sa

from meter.store.database import Database
from meter.store.installation import WrongPepper, check_pepper
from meter.store.tables import installation
from tests.store.conftest import second

PEPPER = b"a pepper that is kept outside the database"


def test_the_same_pepper_is_right(database: Database) -> None:
    """The first pepper is recorded, and is right from then on, for every server."""
    other = second(database)

    for opened in (database, database, other):
        check_pepper(opened, PEPPER)

    other.dispose()


@pytest.mark.parametrize("wrong", [b"another pepper", PEPPER + b"\n", b""])
def test_another_pepper_is_refused(database: Database, wrong: bytes) -> None:
    """Any other pepper is refused with a sentence that says what to do, and what was recorded stays."""
    check_pepper(database, PEPPER)

    with pytest.raises(WrongPepper, match="METER_PEPPER"):
        check_pepper(database, wrong)

    check_pepper(database, PEPPER)


def test_the_pepper_itself_is_not_stored(database: Database) -> None:
    """The database has a fingerprint, from which the pepper cannot be told."""
    check_pepper(database, PEPPER)

    with database.read() as connection:
        ((name, value),) = connection.execute(sa.select(installation)).all()
    assert name == "pepper_fingerprint"
    assert len(value) == 64
    assert PEPPER.hex() not in value


def test_of_two_servers_with_two_peppers_one_is_refused(database: Database) -> None:
    """Where several servers start on a new database at once, one pepper wins."""
    peppers = [b"pepper %d" % number for number in range(4)]
    gate = threading.Barrier(len(peppers))
    refused: list[WrongPepper] = []

    def start(pepper: bytes) -> None:
        gate.wait(20)
        try:
            check_pepper(database, pepper)
        except WrongPepper as refusal:
            refused.append(refusal)

    threads = [threading.Thread(target=start, args=(pepper,)) for pepper in peppers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(refused) == len(peppers) - 1
