"""`meter report`."""

import csv
import sys

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.actions import clock
from meter.cli import opening
from meter.cli.cells import as_text, printable
from meter.core.reports import (
    COLUMNS,
    GROUPS,
    Asked,
    Report,
    as_json,
    columns,
    cost_usd,
    estimated_share,
    question,
)
from meter.store import reports

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


@click.command()
@click.option("--by", default="team,key,model", show_default=True, help=f"Group by: {', '.join(GROUPS)}.")
@click.option("--since", metavar="DATE", help="From this day or time on.  [default: the month's start]")
@click.option("--until", metavar="DATE", help="Up to, not including.  [default: now]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone, such as Europe/Berlin.")
@click.option(
    "--format", "shape", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)
def report(by: str, since: str | None, until: str | None, tz: str, shape: str) -> None:
    """Show who used what."""
    asked = question(Asked(by=by, since=since, until=until, tz=tz), clock.now())
    with opening.existing_database(opening.settings()) as database:
        found = reports.answer(database, asked)
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[shape](found)


def _print_json(found: Report) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(as_json(found)), indent=2))


def _print_csv(found: Report) -> None:
    groups = _group_columns(found)
    writer = csv.writer(sys.stdout)
    writer.writerow([*groups, *COLUMNS])
    for row in found.rows:
        values = columns(row.sums)
        cost = values["cost_usd"]
        cells = values | {"cost_usd": "" if cost is None else cost}
        writer.writerow([*(as_text(row.group[name]) for name in groups), *cells.values()])


def _print_table(found: Report) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(found.rows) > 1)
    total = _cells(found, None)
    for name in found.question.by:
        footer = "total" if name == found.question.by[0] else ""
        table.add_column(name, footer=footer, overflow="fold")
    for (_, heading), cell in zip(_shown(found), total, strict=True):
        table.add_column(heading, footer=cell, justify="right")
    for at, row in enumerate(found.rows):
        table.add_row(*(printable(row.group[name]) for name in found.question.by), *_cells(found, at))
    opening.console().print(table)
    if found.total.corrections:
        amount = columns(found.total)["correction_cost_usd"]
        click.echo(f"of it corrections of closed months: {found.total.corrections:,}, USD {amount}")


def _cells(found: Report, at: int | None) -> list[str]:
    sums = found.total if at is None else found.rows[at].sums
    values = columns(sums) | {"estimated": f"{estimated_share(sums):.1%}"}
    cost = cost_usd(sums)
    values["cost_usd"] = "unpriced" if cost is None else cost
    if cost is not None and sums.unpriced_requests:
        values["cost_usd"] += f" + {sums.unpriced_requests} unpriced"
    return [
        f"{values[name]:,}" if isinstance(values[name], int) else values[name] for name, _ in _shown(found)
    ]


def _shown(found: Report) -> list[tuple[str, str]]:
    """Leave drift out where no upstream has told what it charges."""
    told = any(row.sums.upstream_cost for row in found.rows)
    return [column for column in _SHOWN if told or column[0] != "drift_usd"]


def _group_columns(found: Report) -> list[str]:
    by = found.question.by
    return [name for group in by for name in ((group, "key_id") if group == "key" else (group,))]
