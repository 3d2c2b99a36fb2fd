"""`meter report`."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress as ProgressBar

from meter.app import exports
from meter.app.actions import clock
from meter.cli import opening, report_table
from meter.core.comparison import before, compare, compared_json
from meter.core.refusals import refusals_json
from meter.core.reports import BY, GROUPS, TOP, Asked, Question, as_json
from meter.store import reports
from meter.store.database import Database
from meter.store.questions import question
from meter.store.refusals import refusals

FORMATS = ("table", "csv", "json", "focus")


@click.command()
@click.option("--by", metavar="GROUPS", help=f"Group by: {', '.join(GROUPS)}.  [default: {BY}]")
@click.option("--since", metavar="DATE", help="From this day or time on.  [default: the month's start]")
@click.option("--until", metavar="DATE", help="Up to, not including.  [default: now]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone, such as Europe/Berlin.")
@click.option("--team", metavar="TEAM", help="Of this team only, by name or id.")
@click.option("--key", metavar="KEY", help="Of this key only, by id, or of all keys of this name.")
@click.option("--model", metavar="PATTERN", help="Of these models only; * and ? stand for anything.")
@click.option("--upstream", metavar="NAME", help="Of this upstream only.")
@click.option("--top", metavar="N", default=TOP, show_default=True, help="How many users and tags get a row.")
@click.option("--compare", is_flag=True, help="Beside the time before, of the same length.")
@click.option("--refusals", "refused", is_flag=True, help="What meter refused, by key and reason, instead.")
@click.option("--format", "shape", type=click.Choice(FORMATS), default="table", show_default=True)
def report(*, by: str | None, compare: bool, refused: bool, shape: str, **asked: Any) -> None:
    """Show who used what."""
    _check(by, shape, compare=compare, refused=refused)
    settings = opening.settings()
    with opening.existing_database(settings) as database:
        found = question(
            database,
            Asked(by=BY if by is None else by, **asked),
            clock.now(),
            ledger_days_max=settings.report_ledger_days_max,
        )
        if refused:
            _print_refusals(database, found, shape)
        elif shape == "focus":
            _print_focus(database, found)
        elif compare:
            _print_comparison(database, found, shape)
        else:
            _print_report(database, found, shape)


def _check(by: str | None, shape: str, *, compare: bool, refused: bool) -> None:
    if shape == "focus" and (compare or refused or by is not None):
        raise ValueError(
            "a FOCUS export has rows and columns of its own: leave --by, --compare, --refusals out"
        )
    if refused and (compare or by is not None):
        raise ValueError("refusals are by key and reason: leave --by and --compare out")


def _print_report(database: Database, asked: Question, shape: str) -> None:
    if shape == "csv":
        with _progress() as progress:
            lines = exports.report_csv(database, asked, progress)
        _write(lines)
        return
    found = reports.answer(database, asked)
    if shape == "json":
        _print_json(as_json(found))
    else:
        report_table.print_report(found)


def _print_comparison(database: Database, asked: Question, shape: str) -> None:
    found = compare(reports.answer(database, asked), reports.answer(database, before(asked)))
    if shape == "csv":
        _write(exports.compared_csv(found))
    elif shape == "json":
        _print_json(compared_json(found))
    else:
        report_table.print_comparison(found)


def _print_refusals(database: Database, asked: Question, shape: str) -> None:
    rows = refusals(database, asked)
    if shape == "csv":
        _write(exports.refusals_csv(rows))
    elif shape == "json":
        _print_json(refusals_json(rows))
    else:
        report_table.print_refusals(rows)


def _print_focus(database: Database, asked: Question) -> None:
    with _progress() as progress:
        lines = exports.focus_csv(database, asked, progress)
    _write(lines)


@contextmanager
def _progress() -> Iterator[exports.Progress]:
    """Show how far an export is, on a terminal only; the file itself may go elsewhere."""
    console = Console(stderr=True)
    with ProgressBar(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("reading the books", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line)
