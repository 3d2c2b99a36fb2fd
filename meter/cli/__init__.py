"""The command line: thin commands over the same functions that the servers use."""

import os
import sys
from importlib import import_module

import click

from meter import __version__
from meter.core.errors import MeterError
from meter.datadir import InUseError
from meter.settings import ConfigurationError
from meter.store.failures import DatabaseUnavailable

# sysexits.h: a configuration that cannot be used.
EX_CONFIG = 78


# Each in the module of its name; loaded when it is asked for, since most of them need little of the house.
COMMANDS = (
    "serve",
    "demo",
    "keys",
    "teams",
    "budgets",
    "prices",
    "report",
    "explain",
    "reconcile",
    "close",
    "tokens",
    "audit",
    "verify",
    "doctor",
    "retention",
    "db",
    "work",
)


class _Commands(click.Group):
    """A group whose commands are loaded one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return all names, in the order in which help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """Load a command."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"meter.cli.{cmd_name}"), cmd_name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="meter")
def meter() -> None:
    """Meter every token that passes between your programs and an OpenAI-compatible API."""


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
