"""`meter audit`."""

from datetime import UTC

import click
import msgspec
from rich import box
from rich.table import Table

from meter.cli import opening
from meter.core.period import parse_instant
from meter.store import audit as store


@click.command()
@click.option("--since", metavar="DATE", help="Not before: 2026-11-23, 2026-11-23T14:00.  [default: all]")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an entry a line.")
def audit(since: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001 (click's flag)
    """Show who changed what, newest first."""
    earliest = None if since is None else parse_instant(since, UTC)
    with opening.existing_database(opening.settings()) as database:
        found = store.page(database, since=earliest, limit=limit)
    if as_json:
        for entry in found:
            click.echo(msgspec.json.encode(entry))
        return
    table = Table("at", "actor", "action", "target", "details", box=box.SIMPLE_HEAD)
    for entry in found:
        details = ", ".join(f"{name}={value}" for name, value in entry.details.items() if value is not None)
        at = entry.at.isoformat(timespec="seconds")
        table.add_row(at, entry.actor, entry.action, entry.target, details)
    opening.console().print(table)
