"""`meter close`."""

from datetime import UTC

import click
from rich import box
from rich.table import Table

from meter.app.actions import clock, command_line, signed
from meter.cli import opening
from meter.core.months import closable
from meter.core.period import Period
from meter.core.reports import Question, columns
from meter.datadir import JOURNAL_FOLDER
from meter.journal.recovery import unshipped_between
from meter.settings import Settings
from meter.store import months, reports
from meter.store.database import Database


@click.command()
@click.argument("month", required=False)
@click.option("--list", "list_all", is_flag=True, help="List the months that are closed.")
def close(month: str | None, list_all: bool) -> None:  # noqa: FBT001 (click's flag)
    """Close a month (UTC), such as 2026-11: what comes to it later counts in the month of its posting."""
    if list_all == (month is not None):
        raise click.UsageError("name a month such as 2026-11, or give --list")
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        if month is None:
            _print_list(database)
            return
        period = closable(month, clock.now())
        closed = months.close(database, period, signed(command_line()))
        click.echo(f"{closed.label} is closed, by {closed.closed_by}; it cannot be opened again")
        _print_sums(database, period)
    _warn(configured, period)


def _print_list(database: Database) -> None:
    table = Table("month", "closed", "by", box=box.SIMPLE_HEAD)
    for month in months.list_all(database):
        table.add_row(month.label, month.closed_at.isoformat(timespec="seconds"), month.closed_by)
    opening.console().print(table)


def _print_sums(database: Database, period: Period) -> None:
    total = reports.answer(database, Question(by=(), since=period.start, until=period.end, tz=UTC)).total
    click.echo(f"{total.requests:,} requests, {columns(total)['cost_usd'] or 'no cost known'} USD")
    if total.unpriced_requests:
        click.echo(
            f"warning: {total.unpriced_requests:,} of them have no price; when they get one, it counts then",
            err=True,
        )


def _warn(settings: Settings, period: Period) -> None:
    journals = settings.data_dir / JOURNAL_FOLDER
    waiting = unshipped_between(journals, period.start, period.end) if journals.exists() else {}
    for holder, count in waiting.items():
        click.echo(
            f"warning: the journal of {holder} holds {count:,} events of {period.label} that are not in the "
            "ledger; they count in the month in which they get there",
            err=True,
        )
