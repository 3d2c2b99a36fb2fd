"""The sums that reports read, as the database keeps them: lines of quarter hours, days and months.

Days and months hold nothing that quarter hours don't. They are there because a month has some hundred
thousand lines of quarter hours, which take a database seconds to add up.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from meter.core.rollup import AMOUNTS, COUNTS, TALLIES, LineKey, Sums, coarser
from meter.core.spans import GRAINS
from meter.store.arrays import numbers_array, texts_array
from meter.store.sqlite import insert_rows, time_text
from meter.store.tables import ROLLUP, usage_15m

# SQLite's SUM overflows past 2**63, which is 9.2 million USD: amounts are summed in two parts.
PART = 10**6
ORDER = (*TALLIES, *AMOUNTS)

_LINE_KEY = [column.name for column in usage_15m.primary_key]

# Columns are made in this order, too.
_key_of = attrgetter(*_LINE_KEY)
_counts_of = attrgetter(*COUNTS)
_tallies_of = attrgetter(*TALLIES)
_amounts_of = attrgetter(*AMOUNTS)

_Row = tuple[Any, ...]


def add(connection: sa.Connection, lines: Mapping[LineKey, Sums]) -> None:
    """Add lines of quarter hours to all that is kept, in the transaction of whoever calls."""
    if not lines:
        return
    # Everyone locks the rows in the order of tables and keys, so that no two writers wait for each other.
    for grain, table in ROLLUP.items():
        rows = [_row(table, *line) for line in sorted(coarser(lines, grain).items())]
        if connection.dialect.name == "sqlite":
            _add_to_sqlite(connection, table, rows)
        else:
            _add_to_postgresql(connection, table, rows)


def _add_to_sqlite(connection: sa.Connection, table: sa.Table, rows: list[_Row]) -> None:
    written = [(time_text(bucket), *rest) for bucket, *rest in rows]
    insert_rows(connection, _INTO[table.name], written, _ADDED[table.name])


def _add_to_postgresql(connection: sa.Connection, table: sa.Table, rows: list[_Row]) -> None:
    """Send a column at a time: a statement for each line would take several times as long."""
    columns = list(zip(*rows, strict=True))
    names, sums = columns[: len(_LINE_KEY)], columns[len(_LINE_KEY) :]
    arrays = (*map(texts_array, names), *map(numbers_array, sums))
    connection.exec_driver_sql(_UNNESTED[table.name], arrays)


def _added(table: sa.Table) -> str:
    names = [column.name for column in table.columns if column.name not in _LINE_KEY]
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in names)
    return f"ON CONFLICT ({', '.join(_LINE_KEY)}) DO UPDATE SET {sums}"


def _unnested(table: sa.Table) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    arrays = ", ".join(f"%s::{column.type.compile(dialect)}[]" for column in table.columns)
    return f"INSERT INTO {_INTO[table.name]} SELECT * FROM unnest({arrays}) {_ADDED[table.name]}"  # noqa: S608 (types of ours)


# Every batch asks these, so that they are written once.
_INTO = {table.name: f"{table.name} ({', '.join(table.columns.keys())})" for table in ROLLUP.values()}
_ADDED = {table.name: _added(table) for table in ROLLUP.values()}
_UNNESTED = {table.name: _unnested(table) for table in ROLLUP.values()}


def mismatches(
    connection: sa.Connection, lines: Mapping[LineKey, Sums], since: datetime | None = None
) -> list[str]:
    """Compare what is kept with lines of quarter hours; returns every mismatch as a sentence.

    What is kept of the time before `since`, which begins a month in UTC, is left out.
    """
    return [
        f"{ROLLUP[grain].name} at {mismatch}"
        for grain in reversed(GRAINS)
        for mismatch in _mismatches(connection, ROLLUP[grain], coarser(lines, grain), since)
    ]


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Return names of sums in the order in which they are selected: tallies, then amounts."""
    return tuple(name for name in ORDER if name in names)


def summed(source: sa.FromClause, order: Sequence[str] = ORDER) -> list[sa.ColumnElement[Any]]:
    """Return the sums to select of a table of lines, or of what looks like quarter hours."""
    sums: list[sa.ColumnElement[Any]] = [
        sa.func.sum(source.c[name]).label(name) for name in order if name in TALLIES
    ]
    for name in (name for name in order if name in AMOUNTS):
        whole, rest = _parts(source, name)
        sums += [sa.func.sum(whole).label(f"{name}_whole"), sa.func.sum(rest).label(f"{name}_rest")]
    return sums


def read_summed(values: tuple[Any, ...], tallies: int = len(TALLIES)) -> list[int]:
    """Return what `summed` selects: so many tallies first, then amounts; nothing adds up to 0."""
    numbers = [int(value or 0) for value in values]
    parts = numbers[tallies:]
    amounts = [whole * PART + rest for whole, rest in zip(parts[::2], parts[1::2], strict=True)]
    return numbers[:tallies] + amounts


def as_sums(numbers: list[int], order: Sequence[str] = ORDER) -> Sums:
    """Name what `read_summed` returns."""
    return Sums(**dict(zip(order, numbers, strict=True)))


def _parts(source: sa.FromClause, name: str) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    if f"{name}_whole" in source.c:
        return source.c[f"{name}_whole"], source.c[f"{name}_rest"]
    return source.c[name] // PART, source.c[name] % PART


def _row(table: sa.Table, key: LineKey, line: Sums) -> _Row:
    """Return the values of a table's columns, in their order."""
    if table is usage_15m:
        return (*_key_of(key), *_counts_of(line))
    parts = chain.from_iterable([divmod(amount, PART) for amount in _amounts_of(line)])
    return (*_key_of(key), *_tallies_of(line), *parts)


def _mismatches(
    connection: sa.Connection, table: sa.Table, expected: Mapping[LineKey, Sums], since: datetime | None
) -> Iterator[str]:
    query = sa.select(table) if since is None else sa.select(table).where(table.c.bucket >= since)
    found = {_line_key(row): _line(table, row) for row in connection.execute(query).mappings()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield _mismatch(key, expected.get(key), found.get(key))


def _line_key(row: sa.RowMapping) -> LineKey:
    return LineKey(**{name: row[name] for name in LineKey.__struct_fields__})


def _line(table: sa.Table, row: sa.RowMapping) -> Sums:
    if table is usage_15m:
        return Sums(**{name: row[name] for name in COUNTS})
    amounts = {name: row[f"{name}_whole"] * PART + row[f"{name}_rest"] for name in AMOUNTS}
    return Sums(**{name: row[name] for name in TALLIES}, **amounts)


def _mismatch(key: LineKey, expected: Sums | None, found: Sums | None) -> str:
    differences = [
        f"{name} {getattr(found, name, 0)} instead of {getattr(expected, name, 0)}"
        for name in COUNTS
        if getattr(found, name, 0) != getattr(expected, name, 0)
    ]
    where = f"{key.bucket.isoformat()} team {key.team_id} key {key.key_id} {key.upstream} {key.model}"
    return f"{where}: {', '.join(differences) or 'an empty line'}"
