"""Series: a report over time, with its zeros, and the small ones as one."""

from datetime import UTC, datetime

from meter.core.period import zone
from meter.core.reports import Question, Report, Row
from meter.core.rollup import Sums
from meter.core.series import SERIES_MAX, Series, series, total

SINCE, UNTIL = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 28, 12, tzinfo=UTC)
QUESTION = Question(by=("day", "team"), since=SINCE, until=UNTIL, tz=zone("Europe/Berlin"))


def arranged(*rows: tuple[str, str, int], stack: str = "team", measure: str = "cost") -> Series:
    """Arrange rows of a day, a group and a cost."""
    listed = [
        Row({"day": day, "key_id": name[-2:], stack: name}, Sums(1, cost=cost)) for day, name, cost in rows
    ]
    report = Report(QUESTION, listed, total(row.sums for row in listed))
    return series(report, "day", stack, measure)


def test_every_period_has_its_place() -> None:
    """Days without anything are there, a day of 25 hours is one, and the last one may have only begun."""
    found = arranged(("2026-10-25", "a", 5), ("2026-10-28", "a", 7))

    assert [period.label for period in found.periods] == [
        "2026-10-25",
        "2026-10-26",
        "2026-10-27",
        "2026-10-28",
    ]
    assert [sums.cost for sums in found.series[0].sums] == [5, 0, 0, 7]


def test_the_largest_come_first_and_the_small_ones_are_one() -> None:
    """What is not shown by itself is added up, so that the whole is the report's total."""
    rows = [("2026-10-25", f"team {number:02}", number) for number in range(1, 13)]

    found = arranged(*rows)

    assert len(found.series) == SERIES_MAX
    assert [serie.name for serie in found.series[:2]] == ["team 12", "team 11"]
    rest = found.series[-1]
    assert (rest.name, rest.merged, rest.total.cost) == ("", 5, 1 + 2 + 3 + 4 + 5)
    assert [sums.cost for sums in found.by_period] == [sum(range(13)), 0, 0, 0]


def test_exactly_as_many_as_there_are_colours_stay_apart() -> None:
    """Nothing is merged with nothing."""
    rows = [("2026-10-25", f"team {number:02}", number) for number in range(SERIES_MAX)]

    assert all(serie.merged == 1 for serie in arranged(*rows).series)


def test_size_is_what_is_shown() -> None:
    """By requests, the one that is asked more comes first, though it costs less."""
    rows = (("2026-10-25", "dear", 9), ("2026-10-25", "busy", 1), ("2026-10-26", "busy", 1))

    assert [serie.name for serie in arranged(*rows).series] == ["dear", "busy"]
    assert [serie.name for serie in arranged(*rows, measure="requests").series] == ["busy", "dear"]


def test_keys_of_one_name_stay_apart() -> None:
    """They are told apart by their ids, by which they are filtered too."""
    listed = [Row({"day": "2026-10-25", "key": "k", "key_id": name}, Sums(1, cost=1)) for name in ("x", "y")]

    found = series(Report(QUESTION, listed, Sums(2, cost=2)), "day", "key", "cost")

    assert [(serie.name, serie.id) for serie in found.series] == [("k", "x"), ("k", "y")]


def test_nothing_has_no_series() -> None:
    """An empty report is empty days."""
    found = arranged()

    assert (found.series, [sums.cost for sums in found.by_period]) == ((), [0, 0, 0, 0])
