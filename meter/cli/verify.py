"""`meter verify`."""

import sys

import click

from meter.cli import opening
from meter.datadir import JOURNAL_FOLDER
from meter.journal.quarantine import Quarantine
from meter.journal.recovery import unshipped
from meter.store import ledger

# What is settled is usually in the ledger within a second.
LATE_SECONDS = 60.0


@click.command()
def verify() -> None:
    """Check that the ledger and everything derived from it agree; exit 1 and say what does not."""
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        mismatches = ledger.verify(database)
    journals = configured.data_dir / JOURNAL_FOLDER
    if journals.exists():
        mismatches += unshipped(journals, older_than_seconds=LATE_SECONDS)
        mismatches += _quarantined(Quarantine(journals))
    for mismatch in mismatches:
        click.echo(mismatch)
    if mismatches:
        sys.exit(1)
    click.echo("ok")


def _quarantined(quarantine: Quarantine) -> list[str]:
    count = len(quarantine)
    return [f"{count} records lie in {quarantine.path}; they are in no report"] if count else []
