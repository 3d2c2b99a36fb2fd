"""Reports add up: every grouping, every zone, rollup and ledger alike, to the last picodollar."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import combinations
from random import Random
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.core.period import zone
from meter.core.reports import GROUPS, LEDGER_GROUPS, Question, Report, columns, cost_usd
from meter.core.rollup import Sums, fold
from meter.store import ledger, reports
from meter.store.database import Database
from meter.store.tables import api_keys, metadata, teams
from tests import services
from tests.databases import new_sqlite
from tests.store.conftest import NOW, closing_database, make_event, new_event_id, random_event

RANDOM = Random(1)
SINCE = datetime(2026, 10, 1, tzinfo=UTC)
UNTIL = datetime(2026, 11, 5, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
WITHOUT_LEDGER = [group for group in GROUPS if group not in LEDGER_GROUPS]


class Filled(NamedTuple):
    """A database with events, which nobody changes."""

    database: Database
    events: list[UsageEvent]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Give a database of either kind with random events, of a stretch in which many clocks change."""
    random = Random(11)
    found = [random_event(random, SINCE, UNTIL) for _ in range(300)]
    # One in every quarter hour around the change on Lord Howe, where clocks jump by half an hour.
    jump = datetime(2026, 10, 3, 15, 30, tzinfo=UTC)
    quarters = [jump + timedelta(minutes=15 * number) for number in range(-8, 8)]
    found += [random_event(random, quarter, quarter + timedelta(minutes=15)) for quarter in quarters]
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = new_sqlite(tmp_path_factory.mktemp("reports") / "meter.db")
        else:
            url = stack.enter_context(services.copied(request.getfixturevalue("postgres_url")))
        database = stack.enter_context(closing_database(url))
        with database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        ledger.append(database, found, NOW)
        yield Filled(database, found)


def ask(
    database: Database,
    *by: str,
    tz: tzinfo = UTC,
    since: datetime = SINCE,
    until: datetime = UNTIL,
) -> Report:
    """Ask for a report."""
    return reports.answer(database, Question(by=by, since=since, until=until, tz=tz))


def event_at(text: str, **fields: object) -> UsageEvent:
    """Make an event that began at an instant in UTC."""
    started_at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return make_event(new_event_id(RANDOM, started_at), started_at=started_at, **fields)


def sums_of(events: list[UsageEvent]) -> Sums:
    """Add events up in Python."""
    totals: Counter[str] = Counter()
    for line in fold(events).values():
        totals.update({name: getattr(line, name) for name in Sums.__struct_fields__})
    return Sums(**totals)


def added(report: Report) -> Sums:
    """Add the rows of a report up."""
    total = Sums()
    for row in report.rows:
        total = total.plus(row.sums)
    return total


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("group", [group for group in GROUPS if group != "tag"])
def test_rows_add_up_to_the_total(filled: Filled, group: str, tz: str) -> None:
    """In every grouping and zone, the rows' sums are the total, and the total is the events'."""
    report = ask(filled.database, group, tz=zone(tz))

    assert report.total == sums_of(filled.events)
    assert added(report) == report.total


@pytest.mark.parametrize("by", list(combinations(["team", "key", "model", "day", "user"], 3)), ids=",".join)
def test_rows_of_several_groups_add_up(filled: Filled, by: tuple[str, ...]) -> None:
    """Groups combine, every combination stands in one row, and nothing is lost between them."""
    report = ask(filled.database, *by, tz=zone("Europe/Berlin"))

    assert added(report) == report.total == sums_of(filled.events)
    groups = [tuple(row.group.values()) for row in report.rows]
    assert len(set(groups)) == len(groups)
    assert all(set(row.group) >= set(by) for row in report.rows)


@pytest.mark.parametrize("group", WITHOUT_LEDGER)
def test_ledger_and_rollup_agree(filled: Filled, group: str) -> None:
    """A question that needs the ledger is answered like the one that the rollup answers."""
    tz = zone("Asia/Kolkata")
    from_rollup = ask(filled.database, group, tz=tz)

    from_ledger = ask(filled.database, group, "user", tz=tz)

    merged: dict[str, Sums] = {}
    for row in from_ledger.rows:
        merged[row.group[group]] = merged.get(row.group[group], Sums()).plus(row.sums)
    assert merged == {row.group[group]: row.sums for row in from_rollup.rows}
    assert from_ledger.total == from_rollup.total


def test_without_groups_there_is_one_row(filled: Filled) -> None:
    """A question by nothing is about the total."""
    report = ask(filled.database)

    assert [row.sums for row in report.rows] == [report.total] == [sums_of(filled.events)]


@pytest.mark.parametrize("by", [("team",), ("day",), ("tag",), ("key", "hour")])
def test_a_report_of_nothing_is_empty(database: Database, by: tuple[str, ...]) -> None:
    """Where nothing happened there are no rows, and the total is nothing."""
    report = ask(database, *by)

    assert report.rows == []
    assert report.total == Sums()
    assert cost_usd(report.total) == "0.000000"


def test_an_event_counts_in_each_of_its_tags(database: Database) -> None:
    """By tag, an event stands in the row of each of its tags, and in the total once."""
    ledger.append(
        database,
        [
            event_at("2026-10-21", tags=("a", "b"), prompt_tokens=1, cost=10),
            event_at("2026-10-21", tags=("b", "a"), prompt_tokens=20, cost=10),
            event_at("2026-10-21", tags=("b",), prompt_tokens=300, cost=10),
            event_at("2026-10-21", prompt_tokens=4000, cost=10),
        ],
        NOW,
    )

    report = ask(database, "tag")

    assert {row.group["tag"]: (row.sums.requests, row.sums.prompt_tokens) for row in report.rows} == {
        "a": (2, 21),
        "b": (3, 321),
        "": (1, 4000),
    }
    assert (report.total.requests, report.total.prompt_tokens, report.total.cost) == (4, 4321, 40)


@pytest.mark.parametrize("tag", ["a,b", '"quoted"', "☃", "[]", "null", "a\\b", "'"])
def test_a_tag_may_hold_anything(database: Database, tag: str) -> None:
    """Tags come back as they were sent, whatever they look like inside the database."""
    ledger.append(database, [event_at("2026-10-21", tags=(tag, "plain"))], NOW)

    report = ask(database, "tag")

    assert {row.group["tag"] for row in report.rows} == {tag, "plain"}


def test_by_tag_and_team(database: Database) -> None:
    """Tags combine with other groups."""
    ledger.append(
        database,
        [
            event_at("2026-10-21", team_id="t1", tags=("a", "b")),
            event_at("2026-10-21", team_id="t2", tags=("a",)),
        ],
        NOW,
    )

    report = ask(database, "team", "tag")

    found = {(row.group["team"], row.group["tag"]): row.sums.requests for row in report.rows}
    assert found == {("t1", "a"): 1, ("t1", "b"): 1, ("t2", "a"): 1}
    assert report.total.requests == 2


@pytest.mark.parametrize(
    ("tz", "instants", "days"),
    [
        (
            "Asia/Kolkata",
            ["2026-10-20T18:29:59.999999", "2026-10-20T18:30", "2026-10-21T18:29:59", "2026-10-21T18:30"],
            {"2026-10-20": 1, "2026-10-21": 2, "2026-10-22": 1},
        ),
        (
            "Europe/Berlin",
            # 25 October 2026 has 25 hours: from 22:00 UTC of the day before to 23:00 UTC.
            ["2026-10-24T21:59:59", "2026-10-24T22:00", "2026-10-25T22:59:59", "2026-10-25T23:00"],
            {"2026-10-24": 1, "2026-10-25": 2, "2026-10-26": 1},
        ),
        (
            "UTC",
            ["2026-10-24T23:59:59.999999", "2026-10-25T00:00"],
            {"2026-10-24": 1, "2026-10-25": 1},
        ),
    ],
)
@pytest.mark.parametrize("more", [(), ("user",)])
def test_days_begin_by_the_wall_clock(
    database: Database, tz: str, instants: list[str], days: dict[str, int], more: tuple[str, ...]
) -> None:
    """An event counts in the day that the zone's clocks showed, from the rollup and from the ledger."""
    ledger.append(database, [event_at(instant) for instant in instants], NOW)

    report = ask(database, "day", *more, tz=zone(tz))

    assert {row.group["day"]: row.sums.requests for row in report.rows} == days
    assert [row.group["day"] for row in report.rows] == sorted(days)


@pytest.mark.parametrize("more", [(), ("user",)])
def test_since_is_inclusive_and_until_is_not(database: Database, more: tuple[str, ...]) -> None:
    """What begins at `since` counts, what begins at `until` does not."""
    instants = ["2026-10-20T23:59:59.999999", "2026-10-21T00:00", "2026-10-21T23:59:59", "2026-10-22T00:00"]
    ledger.append(database, [event_at(instant) for instant in instants], NOW)
    day = datetime(2026, 10, 21, tzinfo=UTC)

    report = ask(database, "team", *more, since=day, until=day + timedelta(days=1))

    assert report.total.requests == 2


def test_the_hour_that_comes_twice_is_two_rows_in_order(database: Database) -> None:
    """Where clocks go back, both hours have a row, and the earlier one comes first."""
    ledger.append(database, [event_at("2026-10-25T00:30"), event_at("2026-10-25T01:30")], NOW)

    report = ask(database, "hour", tz=zone("Europe/Berlin"))

    labels = [row.group["hour"] for row in report.rows]
    assert labels == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


@pytest.mark.parametrize("by", [("team",), ("user",), ("tag",), ("month",)])
def test_sums_beyond_64_bits_are_exact(database: Database, by: tuple[str, ...]) -> None:
    """A sum past 9.2 million USD, more picodollars than 64 bits hold, is right to the last one."""
    dear = 2**62 + 1
    quarters = [f"2026-10-21T{hour:02d}:15" for hour in range(24)]
    ledger.append(database, [event_at(quarter, cost=dear) for quarter in quarters], NOW)

    report = ask(database, *by)

    assert report.total.cost == 24 * dear > 2**63
    assert [row.sums.cost for row in report.rows] == [24 * dear]
    assert cost_usd(report.total) == "110680464.44225730972"


@pytest.mark.parametrize("by", [("team",), ("user",)])
def test_an_unknown_cost_is_no_zero(database: Database, by: tuple[str, ...]) -> None:
    """What has no price is counted beside the cost, and a row of such only has no cost."""
    ledger.append(
        database,
        [
            event_at("2026-10-21", team_id="t1", end_user="t1", prompt_tokens=5),
            event_at("2026-10-21", team_id="t2", end_user="t2", cost=0),
            event_at("2026-10-21", team_id="t3", end_user="t3", cost=7),
            event_at("2026-10-21", team_id="t3", end_user="t3", prompt_tokens=3),
        ],
        NOW,
    )

    report = ask(database, *by)

    found = {row.group[by[0]]: (cost_usd(row.sums), row.sums.unpriced_requests) for row in report.rows}
    assert found == {"t1": (None, 1), "t2": ("0.000000", 0), "t3": ("0.000000000007", 1)}
    assert report.total.unpriced_tokens == 8


@pytest.mark.parametrize("by", [("model",), ("user",)])
def test_drift_is_of_what_both_sides_price(database: Database, by: tuple[str, ...]) -> None:
    """Drift is theirs less ours over the events that have both, also after corrections of either kind."""
    first = event_at("2026-10-21", prompt_tokens=1, cost=100, upstream_cost=130)
    unpriced = event_at("2026-10-21", prompt_tokens=2, upstream_cost=50)
    silent = event_at("2026-10-21", prompt_tokens=3, cost=7)

    def drift() -> tuple[int, int, int, str]:
        total = ask(database, *by).total
        return (
            total.upstream_cost,
            total.compared_cost,
            total.compared_upstream_cost,
            columns(total)["drift_usd"],
        )

    ledger.append(database, [first, unpriced, silent], NOW)
    as_recorded = drift()
    dearer = event_at("2026-10-21", corrects_id=first.event_id, cost=20, upstream_cost=0)
    priced = event_at("2026-10-21", corrects_id=unpriced.event_id, cost=60, priced_tokens=2, upstream_cost=50)
    other = event_at("2026-10-21", corrects_id=silent.event_id, cost=1)
    ledger.append(database, [dearer, priced, other], NOW)

    assert as_recorded == (180, 100, 130, "0.00000000003")
    assert drift() == (180, 180, 180, "0.000000")
    assert ledger.verify(database) == []


def test_names_stand_for_ids(database: Database) -> None:
    """Teams and keys are shown by name, keys with their id beside it; what is gone is shown by id."""
    with database.write() as connection:
        connection.execute(teams.insert().values(id="t1", name="search", created_at=NOW))
        for key_id in ("k1", "k2"):
            row = {"id": key_id, "team_id": "t1", "name": "ci", "digest": key_id.encode(), "created_at": NOW}
            connection.execute(api_keys.insert().values(row))
    ledger.append(
        database,
        [
            event_at("2026-10-21", team_id="t1", key_id="k1", prompt_tokens=3),
            event_at("2026-10-21", team_id="t1", key_id="k2", prompt_tokens=2),
            event_at("2026-10-21", team_id="t9", key_id="k9", prompt_tokens=1),
        ],
        NOW,
    )

    report = ask(database, "team", "key")

    assert [row.group for row in report.rows] == [
        {"team": "search", "key": "ci", "key_id": "k1"},
        {"team": "search", "key": "ci", "key_id": "k2"},
        {"team": "t9", "key": "k9", "key_id": "k9"},
    ]


def test_the_largest_row_comes_first(database: Database) -> None:
    """Rows are ordered by cost, then tokens, then name."""
    ledger.append(
        database,
        [
            event_at("2026-10-21", model_requested="b", cost=1),
            event_at("2026-10-21", model_requested="a", cost=1),
            event_at("2026-10-21", model_requested="tokens", cost=1, prompt_tokens=9),
            event_at("2026-10-21", model_requested="dear", cost=2),
        ],
        NOW,
    )

    report = ask(database, "model")

    assert [row.group["model"] for row in report.rows] == ["dear", "tokens", "a", "b"]


def test_hours_of_ten_years_can_be_asked_for(database: Database) -> None:
    """A long report by hour is answered, however many periods it spans."""
    ledger.append(database, [event_at("2026-10-21T12:30")], NOW)
    since = datetime(2017, 1, 1, tzinfo=UTC)

    report = ask(database, "hour", since=since, until=datetime(2027, 1, 1, tzinfo=UTC))

    assert [row.group["hour"] for row in report.rows] == ["2026-10-21T12:00+00:00"]
