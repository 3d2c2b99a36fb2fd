"""Teams are made once by name, and found by name or id."""

import threading
from datetime import timedelta

import pytest

from meter.core.audit import Signature
from meter.core.errors import Conflict, NotFound
from meter.core.teams import Team
from meter.store import teams
from meter.store.database import Database
from tests.store.conftest import NOW

BY = Signature("test", NOW)


def test_a_team_is_found_by_its_name_and_its_id(database: Database) -> None:
    """A team that was made is found, as it was made, by either."""
    made = teams.create(database, team_id="abc", name="search", by=BY)

    assert made == Team("abc", "search", NOW)
    assert teams.find(database, "search") == made
    assert teams.find(database, "abc") == made


def test_a_name_is_taken_once(database: Database) -> None:
    """A second team of the same name is refused, and the first one stays as it is."""
    first = teams.create(database, team_id="abc", name="search", by=BY)

    with pytest.raises(Conflict) as caught:
        teams.create(database, team_id="def", name="search", by=Signature("test", NOW + timedelta(days=1)))

    assert caught.value.param == "name"
    assert teams.list_all(database) == [first]


def test_names_differ_by_case(database: Database) -> None:
    """Names that differ in case only are different names."""
    teams.create(database, team_id="abc", name="search", by=BY)
    teams.create(database, team_id="def", name="Search", by=BY)

    assert teams.find(database, "Search").id == "def"


def test_a_name_goes_before_an_id(database: Database) -> None:
    """Where one team is named like another one's id, the name means the team of that name."""
    teams.create(database, team_id="abc", name="first", by=BY)
    teams.create(database, team_id="def", name="abc", by=BY)

    assert teams.find(database, "abc").id == "def"


@pytest.mark.parametrize("name", ["", "nobody", "sear%", "search' OR '1'='1"])
def test_an_unknown_team_is_not_found(database: Database, name: str) -> None:
    """A name that no team has is refused, saying how to make the team."""
    teams.create(database, team_id="abc", name="search", by=BY)

    with pytest.raises(NotFound, match="meter teams create"):
        teams.find(database, name)


def test_teams_are_listed_by_name(database: Database) -> None:
    """The list is in the order of the names, not of the making."""
    for name in ("c", "a", "b"):
        teams.create(database, team_id=f"id-{name}", name=name, by=BY)

    assert [team.name for team in teams.list_all(database)] == ["a", "b", "c"]


def test_of_many_who_take_a_name_at_once_one_gets_it(database: Database) -> None:
    """Eight threads make a team of the same name: one succeeds, seven are refused."""
    refused: list[Conflict] = []

    def create(number: int) -> None:
        try:
            teams.create(database, team_id=f"id-{number}", name="search", by=BY)
        except Conflict as conflict:
            refused.append(conflict)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(refused) == 7
    assert len(teams.list_all(database)) == 1
