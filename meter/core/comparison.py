"""A report beside the one before it: the same question, of the same length of time right before."""

from typing import Any, NamedTuple

import msgspec

from meter.core.money import Picodollars, format_usd
from meter.core.reports import TIME_GROUPS, Question, Report, Row, columns
from meter.core.rollup import Sums
from meter.core.stretches import quarter_end

COLUMNS = ("previous_requests", "previous_total_tokens", "previous_cost_usd", "change_usd")


class Compared(NamedTuple):
    """Two reports, row by row."""

    question: Question
    rows: list[tuple[Row, Sums]]
    """A row that is only in one of them stands beside nothing."""
    total: tuple[Sums, Sums]


def before(question: Question) -> Question:
    """Ask the same of the time before; raises `ValueError` where rows are periods, which never meet again."""
    times = [group for group in question.by if group in TIME_GROUPS]
    if times:
        raise ValueError(f"a comparison cannot be grouped by {', '.join(times)}: leave it out of 'by'")
    length = quarter_end(question.until) - question.since
    return msgspec.structs.replace(
        question, since=question.since - length, until=question.since, to_date=False
    )


def compare(report: Report, previous: Report) -> Compared:
    """Put each row beside the one of the same group before."""
    earlier = {_key(row): row for row in previous.rows}
    rows = [(row, _sums(earlier.pop(_key(row), None))) for row in report.rows]
    rows += [(Row(row.group, Sums()), row.sums) for row in earlier.values()]
    return Compared(report.question, rows, (report.total, previous.total))


def compared_columns(now: Sums, earlier: Sums) -> dict[str, Any]:
    """Return what stands beside a row: what it was before, and how much it has changed."""
    values = columns(earlier)
    return {
        "previous_requests": values["requests"],
        "previous_total_tokens": values["total_tokens"],
        "previous_cost_usd": values["cost_usd"],
        "change_usd": format_usd(Picodollars(now.cost - earlier.cost)),
    }


def compared_json(compared: Compared) -> dict[str, Any]:
    """Return a comparison as the JSON document that the command line and the API give."""
    rows = [row.group | columns(row.sums) | compared_columns(row.sums, was) for row, was in compared.rows]
    now, was = compared.total
    return {"rows": rows, "total": columns(now) | compared_columns(now, was)}


def _key(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.group.items()))


def _sums(row: Row | None) -> Sums:
    return Sums() if row is None else row.sums
