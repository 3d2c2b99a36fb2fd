"""What a command refuses, as one sentence on standard error and a status.

It is loaded when something is refused: `meter --help` needs neither the settings nor the database.
"""

import click

from meter.core.errors import MeterError
from meter.datadir import InUseError
from meter.settings import ConfigurationError
from meter.store.failures import DatabaseUnavailable

# sysexits.h: a configuration that cannot be used.
EX_CONFIG = 78


def told(fault: Exception) -> int | None:
    """Tell what was refused; returns the exit status, or none where the fault is meter's own."""
    match fault:
        case ConfigurationError():
            click.echo("meter: the configuration cannot be used:", err=True)
            for sentence in fault.faults:
                click.echo(f"  - {sentence}", err=True)
            return EX_CONFIG
        case DatabaseUnavailable():
            click.echo(f"meter: the database is away: {fault}", err=True)
            return 1
        case MeterError() | InUseError() | ValueError():
            click.echo(f"meter: {fault}", err=True)
            return 1
    return None
