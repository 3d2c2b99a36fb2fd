"""Events to look at: newest first, a page at a time, within a scope, and always by an index."""

from datetime import timedelta
from random import Random

import msgspec
import pytest
import sqlalchemy as sa

from meter.core.access import EVERYTHING, Scope
from meter.core.audit import Signature
from meter.core.errors import NotFound
from meter.core.events import Outcome, Place, UsageEvent, Wanted
from meter.core.keys import Key, Minting
from meter.store import events as store
from meter.store import keys, ledger, teams
from meter.store.database import Database
from meter.store.tables import usage_events
from tests.store.conftest import NOW, make_event, new_event_id

BY = Signature("test", NOW)
ROWS = 12_000


@pytest.fixture
def key(database: Database) -> Key:
    """Make a key of the team `search`, beside a team `other`."""
    for name in ("search", "other"):
        teams.create(database, team_id=f"id-{name}", name=name, by=BY)
    minting = Minting(Random(1).choice, b"a pepper that is kept outside the database")
    return keys.issue(database, team="search", name="ci", expires_at=None, minting=minting, by=BY)[0]


def fill(database: Database, count: int, **fields: object) -> list[UsageEvent]:
    """Put events into the ledger, three of each instant, and return them newest first."""
    random = Random(str(fields))
    made = [
        make_event(new_event_id(random), **{"started_at": NOW - timedelta(seconds=number // 3), **fields})
        for number in range(count)
    ]
    ledger.append(database, made, NOW)
    return sorted(made, key=lambda event: (event.started_at, event.event_id), reverse=True)


def read_all(database: Database, wanted: Wanted, scope: Scope, limit: int) -> list[str]:
    """Read every page."""
    found: list[str] = []
    before: Place | None = None
    for _ in range(1000):
        listed, before = store.page(
            database, msgspec.structs.replace(wanted, before=before), scope, limit=limit
        )
        found += [each.event.event_id for each in listed]
        if before is None:
            return found
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 2, 7, 500])
def test_pages_have_every_event_once(database: Database, key: Key, limit: int) -> None:
    """Page after page gives every event once, newest first, also where several begin at one instant."""
    made = fill(database, 20, key_id=key.id, team_id=key.team_id)

    assert read_all(database, Wanted(), EVERYTHING, limit) == [event.event_id for event in made]


def test_events_that_come_meanwhile_move_no_page(database: Database, key: Key) -> None:
    """A page that is read after newer events have come goes on where the one before ended."""
    made = fill(database, 10, key_id=key.id)
    first, place = store.page(database, Wanted(), EVERYTHING, limit=4)
    fill(database, 5, started_at=NOW + timedelta(hours=1))

    rest, end = store.page(database, Wanted(before=place), EVERYTHING, limit=100)

    assert [each.event for each in (*first, *rest)] == made
    assert end is None


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (Wanted(team="search"), "ours"),
        (Wanted(team="id-search"), "ours"),
        (Wanted(key="ci"), "ours"),
        (Wanted(model="served"), "served"),
        (Wanted(model="model", upstream="upstream", team="other"), "theirs"),
        (Wanted(upstream="elsewhere"), "elsewhere"),
        (Wanted(outcome=Outcome.CUT), "cut"),
        (Wanted(until=NOW - timedelta(days=1)), "old"),
        (Wanted(since=NOW + timedelta(seconds=1)), ""),
        (Wanted(model="nothing"), ""),
    ],
)
def test_a_filter_finds_what_it_says(database: Database, key: Key, wanted: Wanted, named: str) -> None:
    """Each filter finds exactly its events."""
    groups: dict[str, dict[str, object]] = {
        "ours": {"key_id": key.id, "team_id": key.team_id},
        "theirs": {"team_id": "id-other"},
        "served": {"model_served": "served"},
        "elsewhere": {"upstream": "elsewhere"},
        "cut": {"outcome": Outcome.CUT},
        "old": {"started_at": NOW - timedelta(days=2)},
    }
    made = {name: fill(database, 3, **fields) for name, fields in groups.items()}

    expected = [event.event_id for event in made.get(named, [])]
    assert read_all(database, wanted, EVERYTHING, 2) == expected


def test_a_scope_hides_other_teams(database: Database, key: Key) -> None:
    """A team sees its own events; another team, its keys and its events do not exist."""
    ours = fill(database, 3, key_id=key.id, team_id=key.team_id)
    theirs = fill(database, 3, team_id="id-other", key_id="their key")
    scope, other = Scope(key.team_id), Scope("id-other")

    assert read_all(database, Wanted(), scope, 2) == [event.event_id for event in ours]
    assert store.find(database, ours[0].event_id, scope)[0].event == ours[0]
    for refused in (
        lambda: store.find(database, theirs[0].event_id, scope),
        lambda: store.page(database, Wanted(team="other"), scope, limit=1),
        lambda: store.page(database, Wanted(key="ci"), other, limit=1),
        lambda: store.page(database, Wanted(key=key.id), other, limit=1),
    ):
        with pytest.raises(NotFound):
            refused()


@pytest.mark.parametrize("event_id", ["", "x", "\x00", "0" * 32, "é", "00000000-0000-0000-0000-00000000000g"])
def test_what_is_no_events_id_is_not_found(database: Database, event_id: str) -> None:
    """Any other text finds nothing."""
    with pytest.raises(NotFound):
        store.find(database, event_id, EVERYTHING)


def test_an_event_comes_with_its_corrections(database: Database, key: Key) -> None:
    """What was corrected later stands behind the event, and the names of team and key on both."""
    (event,) = fill(database, 1, key_id=key.id, team_id=key.team_id, cost=5)
    fill(database, 1, key_id=key.id, team_id=key.team_id, cost=-2, corrects_id=event.event_id)

    found = store.find(database, event.event_id, EVERYTHING)

    assert [(each.team, each.key, each.event.cost) for each in found] == [
        ("search", "ci", 5),
        ("search", "ci", -2),
    ]


def test_what_is_seldom_is_searched_a_bounded_part_at_a_time(
    database: Database, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page looks at so many events at most; the pages together still find everything."""
    monkeypatch.setattr(store, "EXAMINED_MAX", 5)
    fill(database, 30, team_id="id-other")
    oldest = fill(database, 2, team_id=key.team_id, started_at=NOW - timedelta(days=1))

    first, place = store.page(database, Wanted(team="search"), EVERYTHING, limit=10)

    assert first == []
    assert place is not None
    assert read_all(database, Wanted(team="search"), EVERYTHING, 10) == [event.event_id for event in oldest]


def plan(database: Database, query: sa.Select[tuple[object, ...]]) -> str:
    """Ask the database how it would answer."""
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    with database.write() as connection:
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        rows = connection.execute(sa.text(f"{explain} {str(compiled).replace(':', chr(92) + ':')}")).all()
    return "\n".join(str(row[-1]) for row in rows)


def test_no_page_scans_the_ledger(database: Database, key: Key) -> None:
    """Whatever is asked for, an index leads to it on either database, however large the ledger is."""
    grow(database)
    place = Place(NOW - timedelta(minutes=30), new_event_id(Random(7)))
    near = [
        store._near(Wanted(before=before, since=since), key_ids)  # noqa: SLF001 (as `page` puts them together)
        for before in (None, place)
        for since in (None, NOW - timedelta(days=1))
        for key_ids in (None, ["key-7"])
    ]

    for conditions in near:
        narrow = store._narrow(Wanted(model="model"), "id-search")  # noqa: SLF001 (as above)
        queries = (
            store.oldest_examined(conditions),
            store.listing(conditions, narrow, NOW - timedelta(hours=1), 101),
            store.listing(conditions, [], None, 101),
        )
        for query in queries:
            found = plan(database, query)
            assert "SCAN usage_events" not in found.replace("SCAN usage_events USING", ""), found
            # PostgreSQL reads partitions in which there is nothing.
            assert "Seq Scan on usage_events_2026_11" not in found, found
            assert "Index" in found or "INDEX" in found, found


def grow(database: Database) -> None:
    """Make the ledger so large that a database would rather not read all of it."""
    template = make_event(new_event_id(Random(3)))
    ledger.append(database, [template], NOW)
    random = Random(4)
    with database.write() as connection:
        row = dict(connection.execute(sa.select(usage_events)).mappings().one())
        rows = [
            row
            | {
                "event_id": new_event_id(random),
                "started_at": NOW - timedelta(seconds=number),
                "key_id": f"key-{number % 50}",
            }
            for number in range(1, ROWS)
        ]
        connection.execute(sa.insert(usage_events), rows)
        connection.execute(sa.text("ANALYZE usage_events"))
