"""Lines of the rollup within many spans of time, in one statement.

A statement for each day of a month would take as long as thirty of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.spans import GRAINS, Grain, next_grain, spans
from meter.core.stretches import Stretch
from meter.store.tables import ROLLUP, UtcDateTime

# Both databases have a limit on the parameters of a statement, of which a span takes three.
SPANS_PER_STATEMENT = 1_000

_Bounds = tuple[datetime, datetime]


class Share(NamedTuple):
    """A stretch that a span counts for, and whether its sums are added or taken away."""

    stretch: Stretch
    sign: int


_Shared = Mapping[_Bounds, list[Share]]


class Cover(NamedTuple):
    """Spans of one table, and what each of them counts for."""

    lines: sa.FromClause
    source: sa.FromClause
    where: sa.ColumnElement[bool]
    """Which lines are within the spans."""
    span: sa.ColumnElement[Any]
    """Which span a line lies in."""
    shares: Callable[[Any], list[Share]]
    """What a span counts for. What is added to one day at its border is often taken from its neighbour."""


def covers(dialect: sa.Dialect, stretches: Iterable[Stretch]) -> Iterator[Cover]:
    """Cover stretches of time with spans of the rollup, each of which is read once."""
    shared: dict[Grain, dict[_Bounds, list[Share]]] = {grain: {} for grain in GRAINS}
    for stretch in stretches:
        for span in spans(stretch.start, stretch.end):
            shared[span.grain].setdefault((span.start, span.end), []).append(Share(stretch, span.sign))
    for grain, found in shared.items():
        if found and _is_run(grain, found):
            yield _run(ROLLUP[grain], found)
        else:
            for some in _portions(found):
                yield _joined(dialect, ROLLUP[grain], some)


def _is_run(grain: Grain, found: _Shared) -> bool:
    """Tell whether spans are single grains without gaps between them."""
    single = all(end == next_grain(start, grain) for start, end in found)
    length = sum((end - start for start, end in found), timedelta(0))
    return single and length == max(end for _, end in found) - min(start for start, _ in found)


def _run(table: sa.Table, found: _Shared) -> Cover:
    """Read lines in the order of their primary key, which spares SQLite the sorting."""
    bucket = table.c.bucket
    where = (bucket >= min(start for start, _ in found)) & (bucket < max(end for _, end in found))
    by_start = {start: shares for (start, _), shares in found.items()}
    return Cover(table, table, where, bucket, by_start.__getitem__)


def _portions(found: _Shared) -> Iterator[_Shared]:
    items = iter(found.items())
    while some := dict(islice(items, SPANS_PER_STATEMENT)):
        yield some


def _joined(dialect: sa.Dialect, table: sa.Table, found: _Shared) -> Cover:
    """Join the lines within spans to their numbers; they are found by the primary key."""
    numbered: list[tuple[Any, ...]] = [(number, start, end) for number, (start, end) in enumerate(found)]
    values = sa.values(
        sa.column("number", sa.Integer),
        sa.column("start", UtcDateTime),
        sa.column("end", UtcDateTime),
        name="spans",
    )
    # As a common table expression, because SQLite names the columns of VALUES in no other way.
    covered = values.data(numbered).cte("spans")
    within: sa.ColumnElement[bool] = (table.c.bucket >= covered.c.start) & (table.c.bucket < covered.c.end)
    lines: sa.FromClause = table
    if dialect.name == "postgresql":
        # It does not look at the bounds, and would read the whole table, unless it has to look for each span
        # by itself, which OFFSET makes it do.
        lines = sa.select(table).where(within).offset(sa.literal_column("0")).lateral("lines")
        within = sa.true()
    shares = list(found.values())
    return Cover(lines, covered.join(lines, within), sa.true(), covered.c.number, shares.__getitem__)
