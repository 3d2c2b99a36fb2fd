"""Reports as tables, for people."""

import click
from rich import box
from rich.bar import Bar
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from meter.cli import opening
from meter.core.cells import printable
from meter.core.comparison import Compared, compared_columns
from meter.core.refusals import RefusalRow
from meter.core.reports import Report, columns, cost_usd, estimated_share
from meter.core.rollup import Sums

BAR_WIDTH = 16
_SHOWN = (
    ("requests", "requests"),
    ("prompt_tokens", "prompt"),
    ("cached_tokens", "cached"),
    ("completion_tokens", "completion"),
    ("reasoning_tokens", "reasoning"),
    ("cost_usd", "cost USD"),
    ("drift_usd", "drift USD"),
    ("estimated", "estimated"),
)
_COMPARED = (("previous_cost_usd", "before USD"), ("change_usd", "change USD"))


def print_report(found: Report) -> None:
    """Print a report; bars compare several rows by their costs, or by tokens where nothing costs."""
    shown = _shown(found)
    many = len(found.rows) > 1
    table = _table(found.question.by, many=many)
    for name, heading in shown:
        table.add_column(heading, footer=_cells(found.total)[name], justify="right")
    if many:
        table.add_column("")
    sizes = _sizes([row.sums for row in found.rows])
    for row, size in zip(found.rows, sizes, strict=True):
        cells = _cells(row.sums)
        names = [Text(printable(row.group[name])) for name in found.question.by]
        bar = (_bar(size, max(sizes)),) if many else ()
        table.add_row(*names, *(cells[name] for name, _ in shown), *bar)
    opening.console().print(table)
    if found.total.corrections:
        amount = columns(found.total)["correction_cost_usd"]
        click.echo(f"of it corrections of closed months: {found.total.corrections:,}, USD {amount}")


def print_comparison(found: Compared) -> None:
    """Print a report beside the one before."""
    table = _table(found.question.by, many=len(found.rows) > 1)
    shown = [(name, heading) for name, heading in _SHOWN if name != "drift_usd"]
    now, was = found.total
    for name, heading in (*shown, *_COMPARED):
        table.add_column(heading, footer=_compared_cells(now, was)[name], justify="right")
    for row, earlier in found.rows:
        cells = _compared_cells(row.sums, earlier)
        names = [Text(printable(row.group[name])) for name in found.question.by]
        table.add_row(*names, *(cells[name] for name, _ in (*shown, *_COMPARED)))
    opening.console().print(table)


def print_refusals(rows: list[RefusalRow]) -> None:
    """Print how often keys were refused."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(rows) > 1)
    for name in ("team", "key", "reason"):
        table.add_column(name, footer="total" if name == "team" else "", overflow="fold")
    table.add_column("refused", footer=f"{sum(row.count for row in rows):,}", justify="right")
    for row in rows:
        table.add_row(Text(printable(row.team)), Text(printable(row.key)), row.reason, f"{row.count:,}")
    opening.console().print(table)


def _table(by: tuple[str, ...], *, many: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_footer=many)
    for name in by:
        table.add_column(name, footer="total" if name == by[0] else "", overflow="fold")
    return table


def _cells(sums: Sums) -> dict[str, str]:
    values = columns(sums) | {"estimated": f"{estimated_share(sums):.1%}"}
    cells = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
    cost = cost_usd(sums)
    cells["cost_usd"] = "unpriced" if cost is None else cost
    if cost is not None and sums.unpriced_requests:
        cells["cost_usd"] += f" + {sums.unpriced_requests} unpriced"
    return cells


def _compared_cells(now: Sums, was: Sums) -> dict[str, str]:
    beside = compared_columns(now, was)
    return _cells(now) | {name: beside[name] or "unpriced" for name, _ in _COMPARED}


def _sizes(rows: list[Sums]) -> list[int]:
    costs = [max(sums.cost, 0) for sums in rows]
    return costs if any(costs) else [sums.total_tokens for sums in rows]


def _bar(size: int, largest: int) -> RenderableType:
    return Bar(largest, 0, size, width=BAR_WIDTH) if size and largest else ""


def _shown(found: Report) -> list[tuple[str, str]]:
    """Leave drift out where no upstream has told what it charges."""
    told = any(row.sums.upstream_cost for row in found.rows)
    return [column for column in _SHOWN if told or column[0] != "drift_usd"]
