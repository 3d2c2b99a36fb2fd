"""The end users and tags that have rows of their own: the largest, since there may be millions of them."""

import heapq
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.store.ledger_lines import NOBODY
from meter.store.rollup import PART

OTHER = "(other)"
ROWS_PER_FETCH = 5_000


class Top(NamedTuple):
    """Which values of a group have rows of their own."""

    kept: frozenset[str]
    whole: bool
    """Whether these are all."""

    def column(self, values: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Select a value, or what stands for all others."""
        return values if self.whole else sa.case((values.in_(sorted(self.kept)), values), else_=OTHER)

    def tags_of(self, document: str) -> list[str]:
        """Return the rows that an entry with these tags stands in; `document` is their JSON."""
        return sorted({tag if tag in self.kept else OTHER for tag in _tags(document)})


def top(
    connection: sa.Connection, lines: sa.FromClause, where: sa.ColumnElement[bool], group: str, count: int
) -> Top:
    """Find the largest values by cost, then by tokens, and keep them beside those that name nobody."""
    column = lines.c[group]
    cost = sa.func.sum(lines.c.cost // PART)
    tokens = sa.func.sum(lines.c.prompt_tokens + lines.c.completion_tokens)
    query = sa.select(column, cost, tokens).where(where).group_by(column)
    rows = connection.execute(query, execution_options={"yield_per": ROWS_PER_FETCH})
    sizes = ((int(cost or 0), int(tokens or 0), value) for value, cost, tokens in rows)
    named = (size for size in (_by_tag(sizes) if group == "tag" else sizes) if size[2] != NOBODY)
    largest = heapq.nlargest(count + 1, named)
    return Top(frozenset([NOBODY, *(value for *_, value in largest[:count])]), whole=len(largest) <= count)


def _by_tag(sizes: Iterator[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    added: dict[str, tuple[int, int]] = {}
    for cost, tokens, document in sizes:
        for tag in set(_tags(document)):
            before = added.get(tag, (0, 0))
            added[tag] = before[0] + cost, before[1] + tokens
    return ((cost, tokens, tag) for tag, (cost, tokens) in added.items())


def _tags(document: str) -> list[str]:
    return json.loads(document) or [NOBODY]
