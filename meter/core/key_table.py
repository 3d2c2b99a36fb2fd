"""The table of keys: what each has spent, beside what it had before; sorted, filtered, a page at a time."""

from collections.abc import Callable
from typing import Any

import msgspec

from meter.core.comparison import Compared
from meter.core.reports import Row, estimated_share
from meter.core.rollup import Sums
from meter.core.views import View

ROWS_PER_PAGE = 50

_SIZES: dict[str, Callable[[Row, Sums], Any]] = {
    "key": lambda row, _: row.group["key"].casefold(),
    "team": lambda row, _: row.group["team"].casefold(),
    "requests": lambda row, _: row.sums.requests,
    "errors": lambda row, _: row.sums.errors,
    "tokens": lambda row, _: row.sums.total_tokens,
    "estimated": lambda row, _: estimated_share(row.sums),
    "cost": lambda row, _: row.sums.cost,
    "before": lambda _, was: was.cost,
    "change": lambda row, was: row.sums.cost - was.cost,
}


class KeyTable(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the table."""

    rows: list[tuple[Row, Sums]]
    found: int
    """How many keys the filter leaves."""
    page: int
    pages: int

    @property
    def first(self) -> int:
        """The number of the page's first row."""
        return (self.page - 1) * ROWS_PER_PAGE + 1


def key_table(compared: Compared, view: View) -> KeyTable:
    """Sort and filter a comparison that is grouped by team and key."""
    rows = [(row, was) for row, was in compared.rows if _is_wanted(row, view.find.casefold())]
    # Equals stand by name whichever way they are sorted.
    rows.sort(key=lambda each: (each[0].group["key"].casefold(), each[0].group["key_id"]))
    size = _SIZES[view.sort.removeprefix("-")]
    rows.sort(key=lambda each: size(*each), reverse=view.sort.startswith("-"))
    pages = max(1, -(-len(rows) // ROWS_PER_PAGE))
    page = min(view.page, pages)
    first = (page - 1) * ROWS_PER_PAGE
    return KeyTable(rows=rows[first : first + ROWS_PER_PAGE], found=len(rows), page=page, pages=pages)


def _is_wanted(row: Row, text: str) -> bool:
    return any(text in row.group[name].casefold() for name in ("key", "team", "key_id"))
