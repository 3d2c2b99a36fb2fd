"""`meter retention`."""

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app import retaining
from meter.app.actions import clock, command_line
from meter.cli import opening
from meter.core.retention import MONTHS_MAX, Plan, as_json, label
from meter.store.clock import database_now
from meter.store.database import Database
from meter.store.retention import begins

_SUMS = "The sums of reports stay."


@click.command()
@click.option(
    "--months",
    type=click.IntRange(1, MONTHS_MAX),
    help="Keep so many months beside the one that runs.  [default: METER_RETENTION_MONTHS]",
)
@click.option("--apply", "applied", is_flag=True, help="Remove them; without it nothing changes.")
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def retention(months: int | None, applied: bool, shape: str) -> None:  # noqa: FBT001 (click's flag)
    """Show which events are older than is to be kept, or remove them; the sums of reports stay."""
    configured = opening.settings()
    kept = configured.retention_months if months is None else months
    if applied and not kept:
        raise ValueError("nothing says how long events are kept: give --months or set METER_RETENTION_MONTHS")
    with opening.existing_database(configured) as database:
        found = retaining.plan(database, kept)
        if applied:
            found = _apply(database, found, kept)
    if shape == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(found, applied=applied)), indent=2))
    else:
        _print(found, applied=applied)


def _apply(database: Database, found: Plan, months: int) -> Plan:
    retaining.apply(database, months, command_line(), database_now(database, clock.now()))
    database.checkpoint()
    return found._replace(horizon=begins(database))


def _print(found: Plan, *, applied: bool) -> None:
    if found.months:
        table = Table(box=box.SIMPLE_HEAD, show_footer=True)
        table.add_column("month", footer="total")
        table.add_column("events", footer=f"{sum(each.events for each in found.months):,}", justify="right")
        for month in found.months:
            table.add_row(month.label, f"{month.events:,}")
        opening.console().print(table)
    click.echo(_state(found))
    if not found.months:
        click.echo("No event leaves.")
    elif applied:
        click.echo(f"These events have left the ledger. {_SUMS}")
    else:
        click.echo(f"Nothing has been changed; --apply removes these events for good. {_SUMS}")


def _state(found: Plan) -> str:
    begins = "with its first event" if found.horizon is None else f"at {label(found.horizon)}"
    if found.wanted is None:
        return f"The ledger begins {begins}; METER_RETENTION_MONTHS is not set, so that everything is kept."
    if found.horizon is not None and found.horizon >= found.wanted:
        return f"The ledger begins {begins}."
    return f"The ledger begins {begins}, and is to begin at {label(found.wanted)}."
