"""A report stands beside the one before it, row by row."""

from datetime import UTC, datetime

import msgspec
import pytest

from meter.core.comparison import before, compare, compared_json
from meter.core.reports import Question, Report, Row
from meter.core.rollup import Sums

QUESTION = Question(
    by=("team",),
    since=datetime(2026, 11, 1, tzinfo=UTC),
    until=datetime(2026, 11, 10, 12, 7, tzinfo=UTC),
    tz=UTC,
    to_date=True,
)


def test_the_time_before_has_the_same_length() -> None:
    """What is compared with ends where the question begins, and is as long in quarter hours."""
    earlier = before(QUESTION)

    assert earlier.until == QUESTION.since
    assert earlier.since == datetime(2026, 10, 22, 11, 45, tzinfo=UTC)
    assert earlier.by == QUESTION.by


def test_periods_cannot_be_compared() -> None:
    """Rows that are days have no counterpart before."""
    with pytest.raises(ValueError, match="day"):
        before(msgspec.structs.replace(QUESTION, by=("team", "day")))


def test_rows_meet_their_own_group() -> None:
    """Rows of the same group stand side by side; one that is alone stands beside nothing."""
    now = Report(QUESTION, [Row({"team": "a"}, Sums(cost=5)), Row({"team": "b"}, Sums(cost=3))], Sums(cost=8))
    was = Report(QUESTION, [Row({"team": "c"}, Sums(cost=2)), Row({"team": "a"}, Sums(cost=7))], Sums(cost=9))

    document = compared_json(compare(now, was))

    found = {row["team"]: (row["cost_usd"], row["previous_cost_usd"]) for row in document["rows"]}
    assert found == {
        "a": ("0.000000000005", "0.000000000007"),
        "b": ("0.000000000003", "0.000000"),
        "c": ("0.000000", "0.000000000002"),
    }
    assert document["total"]["change_usd"] == "-0.000000000001"
