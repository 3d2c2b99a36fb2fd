"""`meter doctor`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from meter.app.examining import examine
from meter.cli import opening
from meter.cli.migrations import is_known
from meter.core.cells import printable
from meter.core.doctor import Check, State, as_json, worst
from meter.settings import ConfigurationError
from meter.store import revision
from meter.store.database import Database

_COLORS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration.  [default: meter.toml]")
@click.option("--json", "shaped", is_flag=True, help="Print JSON for a program.")
def doctor(config: Path | None, shaped: bool) -> None:  # noqa: FBT001 (click's flag)
    """Examine everything a server needs; exit 1 if something fails, and say what to do."""
    checks = []
    for check in _examine(config):
        checks.append(check)
        if not shaped:
            _print(check)
    if shaped:
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(checks)), indent=2))
    sys.exit(worst(checks) is State.FAIL)


def _examine(config: Path | None) -> Iterator[Check]:
    try:
        configured = opening.settings(config)
    except ConfigurationError as fault:
        for sentence in fault.faults:
            yield Check(
                "configuration", State.FAIL, sentence, "correct the setting; nothing else was looked at"
            )
        return
    yield from examine(configured, _revisions)


def _revisions(database: Database) -> tuple[str | None, str | None, bool]:
    current = revision.current(database)
    return current, revision.HEAD, is_known(current)


def _print(check: Check) -> None:
    state = click.style(f"{check.state:<4}", fg=_COLORS[check.state])
    click.echo(f"{state}  {check.name}: {printable(check.seen)}")
    if check.state is not State.OK:
        click.echo(f"      -> {printable(check.advice)}")
