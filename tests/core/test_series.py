"""Series: a report over time, with its zeros, and the small ones as one."""

from datetime import UTC, datetime

from meter.core.period import zone
from meter.core.reports import Question, Report, Row
from meter.core.rollup import Sums
from meter.core.series import SERIES_MAX, Rest, Series, largest, series, total

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


def of_keys(*rows: tuple[str, str, int], by: tuple[str, ...] = ("day", "key")) -> Report:
    """Make a report of keys: a day, an id, a cost."""
    listed = [
        Row(
            {"day": day, "key": f"name {key_id}", "key_id": key_id} if "key" in by else {"day": day},
            Sums(1, cost=cost),
        )
        for day, key_id, cost in rows
    ]
    return Report(QUESTION, listed, total(row.sums for row in listed))


def test_what_was_not_asked_for_is_the_rest_of_the_whole() -> None:
    """A chart of a few keys among hundreds has the same total as one that was asked for all of them."""
    rows = [("2026-10-25", f"{number:02}", number) for number in range(20)]
    rows += [("2026-10-28", f"{number:02}", 1) for number in range(20)]
    keys = Report(
        QUESTION,
        [
            Row({"team": "t", "key": f"name {n:02}", "key_id": f"{n:02}"}, Sums(2, cost=n + 1))
            for n in range(20)
        ],
        Sums(),
    )
    chosen = largest(keys, "cost")
    assert chosen is not None

    report = of_keys(*(row for row in rows if row[1] in chosen))
    whole = of_keys(("2026-10-25", "", sum(range(20))), ("2026-10-28", "", 20), by=("day",))
    whole.rows[0].sums.requests = whole.rows[1].sums.requests = 20
    few = series(report, "day", "key", "cost", Rest(whole, 13))

    assert few == series(of_keys(*rows), "day", "key", "cost")
    assert few.series[-1].merged == 13


def test_a_few_keys_are_all_asked_for() -> None:
    """Then there is no rest."""
    rows = [Row({"team": "t", "key": "k", "key_id": f"{n}"}, Sums()) for n in range(SERIES_MAX)]

    assert largest(Report(QUESTION, rows, Sums()), "cost") is None


def test_nothing_has_no_series() -> None:
    """An empty report is empty days."""
    found = arranged()

    assert (found.series, [sums.cost for sums in found.by_period]) == ((), [0, 0, 0, 0])
