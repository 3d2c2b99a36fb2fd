"""Questions are read with their defaults and faults, and answers have the documented shape."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.reports import (
    COLUMNS,
    GROUPS,
    Asked,
    Question,
    Report,
    Row,
    as_json,
    columns,
    estimated_share,
    parse_groups,
    question,
)
from meter.core.rollup import Sums

NOW = datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC)
# What scripts read; a report may have more columns, never fewer.
DOCUMENTED = {
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost_usd",
    "unpriced_requests",
    "estimated_requests",
}

sums = st.builds(Sums, **{name: st.integers(0, 10**12) for name in Sums.__struct_fields__})


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def report(rows: list[Row], total: Sums) -> Report:
    """Make an answer to some question."""
    asked = Question(by=("team",), since=at("2026-11-01"), until=NOW, tz=UTC)
    return Report(asked, rows, total)


def test_a_question_without_bounds_is_about_the_month_to_date() -> None:
    """By default a report is about this month in UTC until now, by team, key and model."""
    asked = question(Asked(), NOW)

    assert asked.by == ("team", "key", "model")
    assert (asked.since, asked.until) == (at("2026-11-01"), NOW)
    assert asked.tz.utcoffset(None) == timedelta(0)


@pytest.mark.parametrize(
    ("asked", "since", "until"),
    [
        (Asked(tz="Europe/Berlin"), "2026-10-31T23:00", None),
        (Asked(tz="America/New_York"), "2026-11-01T04:00", None),
        (Asked(since="2026-11-20"), "2026-11-20T00:00", None),
        (Asked(since="2026-11-20", tz="Asia/Kolkata"), "2026-11-19T18:30", None),
        (Asked(until="2026-11-20"), "2026-11-01T00:00", "2026-11-20T00:00"),
        (Asked(since="2026-10", until="2026-11"), "2026-10-01T00:00", "2026-11-01T00:00"),
        (Asked(since="2026-10", until="2026-11", tz="Europe/Berlin"), "2026-09-30T22:00", "2026-10-31T23:00"),
        (Asked(since="2026-11-20T14:15", until="2026-11-20T14:30"), "2026-11-20T14:15", "2026-11-20T14:30"),
        (Asked(since="2026-11-20T14:15+02:00"), "2026-11-20T12:15", None),
        (Asked(since="2020-01-01", until="2030-01-01"), "2020-01-01T00:00", "2030-01-01T00:00"),
    ],
)
def test_bounds_are_meant_in_the_zone(asked: Asked, since: str, until: str | None) -> None:
    """A bound is an instant of the question's zone; the one that is not given has its default."""
    found = question(asked, NOW)

    assert (found.since, found.until) == (at(since), NOW if until is None else at(until))


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (Asked(tz="Mars/Olympus"), "unknown time zone"),
        (Asked(since="yesterday"), "not a date"),
        (Asked(until="2026-11-31"), "not a date"),
        (Asked(since="2026-11-20T14:07"), "quarter hours"),
        (Asked(until="2026-11-20T14:15:01"), "quarter hours"),
        (Asked(since="2026-11-20", until="2026-11-20"), "ends before it begins"),
        (Asked(since="2026-11-21", until="2026-11-20"), "ends before it begins"),
        (Asked(since="2026-12-01"), "ends before it begins"),
        (Asked(by="planet"), "cannot group by planet"),
        (Asked(by="team,planet,star"), "cannot group by planet, star"),
        (Asked(by="team,team"), "each group once"),
        (Asked(by="Team"), "cannot group by Team"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(asked: Asked, fault: str) -> None:
    """What is wrong with a question is said in a sentence."""
    with pytest.raises(ValueError, match=fault):
        question(asked, NOW)


def test_the_first_instant_of_a_month_has_a_report() -> None:
    """The month to date can be asked for at the very instant at which the month begins."""
    now = at("2026-12-01")

    asked = question(Asked(), now)

    assert asked.since <= now <= asked.until


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("team", ("team",)),
        ("key,day", ("key", "day")),
        (" team , hour ", ("team", "hour")),
        (",".join(GROUPS), GROUPS),
        ("", ()),
    ],
)
def test_groups_are_separated_by_commas(text: str, groups: tuple[str, ...]) -> None:
    """Groups keep the order in which they are named; naming none asks for the total."""
    assert parse_groups(text) == groups


def test_all_documented_groups_are_there() -> None:
    """A report can be grouped by everything that the command line's manual names."""
    documented = {"team", "key", "model", "upstream", "day", "hour", "month", "user", "tag"}

    assert documented <= set(GROUPS)


def test_the_json_shape() -> None:
    """A report is an object of rows and total; rows hold their groups and the documented columns."""
    row = Row({"key": "ci", "key_id": "abc"}, Sums(requests=2, prompt_tokens=3, cost=123_000_000))

    document = json.loads(json.dumps(as_json(report([row], row.sums))))

    assert set(document) == {"rows", "total"}
    assert set(document["rows"][0]) == {"key", "key_id", *COLUMNS}
    assert set(document["total"]) == set(COLUMNS)
    assert set(COLUMNS) >= DOCUMENTED
    assert document["rows"][0]["key"] == "ci"
    assert document["rows"][0]["cost_usd"] == "0.000123"


@pytest.mark.parametrize(
    ("row", "cost_usd"),
    [
        (Sums(requests=1, cost=123_000_000), "0.000123"),
        (Sums(requests=3, unpriced_requests=3), None),
        # A part is known, and beside it stands how many are not.
        (Sums(requests=3, unpriced_requests=2, cost=5), "0.000000000005"),
        # Free is not unpriced, and nothing costs nothing.
        (Sums(requests=1, cost=0), "0.000000"),
        (Sums(), "0.000000"),
    ],
)
def test_an_unknown_cost_is_no_zero(row: Sums, cost_usd: str | None) -> None:
    """Where nothing of a row has a price, its cost is null; in all other rows it is a decimal string."""
    assert columns(row)["cost_usd"] == cost_usd


def test_columns_are_counts_and_strings() -> None:
    """Every column is a whole number, but the cost, which no float may touch."""
    shown = columns(Sums(requests=1, cost=1))

    assert tuple(shown) == COLUMNS
    assert {type(value) for name, value in shown.items() if name.endswith("_usd")} == {str}
    assert {type(value) for name, value in shown.items() if not name.endswith("_usd")} == {int}


@given(sums, sums)
def test_rows_add_up(one: Sums, other: Sums) -> None:
    """Adding two rows adds each of their sums, in either order."""
    both = one.plus(other)

    assert both == other.plus(one)
    for name in Sums.__struct_fields__:
        assert getattr(both, name) == getattr(one, name) + getattr(other, name)
    assert both.total_tokens == one.total_tokens + other.total_tokens


@pytest.mark.parametrize(
    ("row", "share"),
    [
        (Sums(), 0.0),
        (Sums(prompt_tokens=75, completion_tokens=25), 0.0),
        (Sums(prompt_tokens=75, completion_tokens=25, estimated_tokens=20, invalid_tokens=5), 0.25),
        (Sums(prompt_tokens=1, estimated_tokens=1), 1.0),
    ],
)
def test_the_share_of_tokens_that_nobody_reported(row: Sums, share: float) -> None:
    """What was estimated, for want of usage or because it was invalid, is a part of the tokens."""
    assert estimated_share(row) == share
