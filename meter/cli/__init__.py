"""The command line: thin commands over the same functions that the servers use."""

import os
import sys
from importlib import import_module

import click

from meter import __version__

# Each in the module of its name, and what the list of all commands says of it. They are loaded one by one,
# since most need little of the house, and the list nothing of it.
COMMANDS = {
    "serve": "Start the proxy and its control listener.",
    "demo": "Show everything with made-up data: no account, no network, nothing left behind.",
    "keys": "Make, list, change, rotate and revoke keys.",
    "teams": "Make, list and change teams.",
    "budgets": "Make, list and take away budgets.",
    "prices": "Look at prices, and set them: in USD per million tokens.",
    "report": "Show who used what.",
    "explain": "Show what an event costs and why, by its id (the answer's x-meter-request-id).",
    "reconcile": "Compare a provider's invoice or usage export with the ledger.",
    "close": "Close a month (UTC), such as 2026-11: "
    "what comes to it later counts in the month of its posting.",
    "tokens": "Make, list and revoke tokens of the control listener.",
    "audit": "Show who changed what, newest first.",
    "verify": "Check that the ledger and everything derived from it agree; exit 1 and say what does not.",
    "doctor": "Examine everything a server needs; exit 1 if something fails, and say what to do.",
    "retention": "Show which events are older than is to be kept, or remove them; the sums of reports stay.",
    "db": "Look after the database's tables.",
}
# Started by others, and not listed.
HIDDEN = ("work",)
# Of a line of the list: its margins, as click has them.
_MARGINS = 6


class _Commands(click.Group):
    """A group whose commands are loaded one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return all names, in the order in which help shows them."""
        return [*COMMANDS, *HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """Load a command."""
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        found: click.Command = getattr(import_module(f"meter.cli.{cmd_name}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        """List the commands without loading them."""
        width = formatter.width - _MARGINS - max(map(len, COMMANDS))
        listed = (click.Command(name, help=told) for name, told in COMMANDS.items())
        with formatter.section("Commands"):
            formatter.write_dl([(one.name or "", one.get_short_help_str(width)) for one in listed])


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
    except Exception as fault:
        from meter.cli.faults import told  # noqa: PLC0415 (it knows the database's and the settings' faults)

        status = told(fault)
        if status is None:
            raise
        sys.exit(status)
