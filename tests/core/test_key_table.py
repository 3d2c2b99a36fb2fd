"""The table of keys: sorted, filtered, a page at a time."""

from datetime import UTC, datetime

import pytest

from meter.core.comparison import Compared
from meter.core.key_table import ROWS_PER_PAGE, KeyTable, key_table
from meter.core.reports import Question, Row
from meter.core.rollup import Sums
from meter.core.views import SORTS, View

NOW = datetime(2026, 11, 25, tzinfo=UTC)
QUESTION = Question(by=("team", "key"), since=NOW, until=NOW, tz=UTC)


def compared(*rows: tuple[str, str, Sums, Sums]) -> Compared:
    """Make a comparison of keys."""
    listed = [
        (Row({"team": team, "key": key, "key_id": f"id-{key}"}, now), was) for key, team, now, was in rows
    ]
    return Compared(QUESTION, listed, (Sums(), Sums()))


THREE = compared(
    ("beta", "x", Sums(3, 0, 90, 10, cost=300), Sums(cost=400)),
    ("Alpha", "y", Sums(5, 2, 10, 10, cost=100, estimated_tokens=20), Sums(cost=50)),
    ("gamma", "X-ray", Sums(1, 1, 20, 10, cost=200), Sums()),
)


def names(found: KeyTable) -> list[str]:
    """Return the keys of a page."""
    return [row.group["key"] for row, _ in found.rows]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("key", "Alpha"),
        ("-key", "gamma"),
        ("team", "beta"),
        ("-team", "Alpha"),
        ("requests", "gamma"),
        ("-errors", "Alpha"),
        ("-tokens", "beta"),
        ("-estimated", "Alpha"),
        ("-cost", "beta"),
        ("cost", "Alpha"),
        ("before", "gamma"),
        ("-change", "gamma"),
        ("change", "beta"),
    ],
)
def test_every_column_sorts_both_ways(sort: str, first: str) -> None:
    """The first row is the one that the column says, whatever its letters' case."""
    assert names(key_table(THREE, View(sort=sort)))[0] == first


@pytest.mark.parametrize("sort", SORTS)
def test_equals_stand_by_name(sort: str) -> None:
    """Where a column does not tell rows apart their names do, up or down."""
    rows = [(name, "t", Sums(), Sums()) for name in ("c", "a", "b")]
    up = key_table(compared(*rows), View(sort=sort))
    down = key_table(compared(*rows), View(sort=f"-{sort}"))

    assert names(up) == ["a", "b", "c"]
    assert names(down) == (["c", "b", "a"] if sort == "key" else ["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "found"),
    [("", 3), ("ALPHA", 1), ("x", 2), ("id-gam", 1), ("nobody", 0), ("*", 0)],
)
def test_the_filter_looks_at_keys_teams_and_ids(text: str, found: int) -> None:
    """It finds a part of a name, whatever its case, and knows no patterns."""
    assert key_table(THREE, View(find=text)).found == found


def test_a_page_has_fifty_rows() -> None:
    """A page beyond the last one is the last one."""
    many = compared(*((f"key {number:03}", "t", Sums(), Sums()) for number in range(ROWS_PER_PAGE * 2 + 1)))

    second, beyond = (key_table(many, View(sort="key", page=page)) for page in (2, 99))

    assert (names(second)[0], second.first, second.pages) == ("key 050", 51, 3)
    assert (names(beyond), beyond.page) == (["key 100"], 3)
    assert key_table(compared(), View()).pages == 1
