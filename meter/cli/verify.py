"""`meter verify`."""

import sys

import click

from meter.cli import opening
from meter.store import ledger


@click.command()
def verify() -> None:
    """Check that the ledger and everything derived from it agree; exit 1 and say what does not."""
    with opening.existing_database(opening.settings()) as database:
        mismatches = ledger.verify(database)
    for mismatch in mismatches:
        click.echo(mismatch)
    if mismatches:
        sys.exit(1)
    click.echo("ok")
