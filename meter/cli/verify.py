"""`meter verify`."""

import sys
from datetime import UTC, datetime

import click

from meter.cli import opening
from meter.core.reports import Question
from meter.core.retention import label
from meter.datadir import JOURNAL_FOLDER
from meter.journal.quarantine import Quarantine
from meter.journal.recovery import unshipped
from meter.store import corrections, ledger, reports, retention
from meter.store.database import Database

# What is settled is usually in the ledger within a second.
LATE_SECONDS = 60.0


@click.command()
def verify() -> None:
    """Check that the ledger and everything derived from it agree; exit 1 and say what does not."""
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        horizon = retention.begins(database)
        mismatches = ledger.verify(database) + corrections.verify(database)
        mismatches += _report_mismatches(database, horizon)
    journals = configured.data_dir / JOURNAL_FOLDER
    if journals.exists():
        mismatches += unshipped(journals, older_than_seconds=LATE_SECONDS)
        mismatches += _quarantined(Quarantine(journals))
    for mismatch in mismatches:
        click.echo(mismatch)
    if mismatches:
        sys.exit(1)
    click.echo("ok")
    if horizon is not None:
        click.echo(f"compared from {label(horizon)} on, where the ledger begins")


def _report_mismatches(database: Database, horizon: datetime | None) -> list[str]:
    """Compare what reports say from the rollup with what they say from the ledger."""
    since, until = horizon or datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
    # Models are in the rollup, end users only in the ledger.
    from_rollup, from_ledger = (
        reports.answer(database, Question(by=(group,), since=since, until=until, tz=UTC)).total
        for group in ("model", "user")
    )
    if from_rollup == from_ledger:
        return []
    return [f"reports: {from_rollup} from usage_15m, {from_ledger} from usage_events"]


def _quarantined(quarantine: Quarantine) -> list[str]:
    count = len(quarantine)
    return [f"{count} records lie in {quarantine.path}; they are in no report"] if count else []
