"""The command line: thin commands over the same functions that the servers use."""

import os
import sys

import click

from meter import __version__
from meter.cli import (
    audit,
    budgets,
    close,
    db,
    explain,
    keys,
    prices,
    reconcile,
    report,
    serve,
    teams,
    tokens,
    verify,
    work,
)
from meter.core.errors import MeterError
from meter.datadir import InUseError
from meter.settings import ConfigurationError
from meter.store.failures import DatabaseUnavailable

# sysexits.h: a configuration that cannot be used.
EX_CONFIG = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="meter")
def meter() -> None:
    """Meter every token that passes between your programs and an OpenAI-compatible API."""


for command in (
    budgets.budgets,
    serve.serve,
    work.work,
    keys.keys,
    teams.teams,
    tokens.tokens,
    prices.prices,
    report.report,
    explain.explain,
    close.close,
    reconcile.reconcile,
    audit.audit,
    verify.verify,
    db.db,
):
    meter.add_command(command)


def main() -> None:
    """Run a command; whatever it refuses is one sentence on standard error."""
    # Keys' digests and who spent what are nobody else's business on this machine.
    os.umask(0o077)
    try:
        meter()
    except ConfigurationError as fault:
        click.echo("meter: the configuration cannot be used:", err=True)
        for sentence in fault.faults:
            click.echo(f"  - {sentence}", err=True)
        sys.exit(EX_CONFIG)
    except DatabaseUnavailable as fault:
        click.echo(f"meter: the database is away: {fault}", err=True)
        sys.exit(1)
    except (MeterError, InUseError, ValueError) as fault:
        click.echo(f"meter: {fault}", err=True)
        sys.exit(1)
