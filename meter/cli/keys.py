"""`meter keys`."""

from datetime import datetime

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.actions import clock, issue_key
from meter.cli import opening
from meter.core.keys import Key
from meter.core.period import after
from meter.core.stream_usage import MODES
from meter.store import keys as store
from meter.store import teams
from meter.store.installation import check_pepper
from meter.web.keys import issued


@click.group()
def keys() -> None:
    """Make, list and revoke keys."""


@keys.command()
@click.option("--team", required=True, help="The team's name or id.")
@click.option("--name", help="What to call the key in reports.  [default: its id]")
@click.option("--expires", metavar="90d", help="When the key ends: 90d, 12h, 30m.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def create(team: str, name: str | None, expires: str | None, as_json: bool) -> None:  # noqa: FBT001 (click's flag)
    """Make a key. It is shown once and stored nowhere."""
    configured = opening.settings()
    expires_at = None if expires is None else after(clock.now(), expires)
    with opening.existing_database(configured) as database:
        pepper = opening.pepper(configured)
        # A key under another pepper than the servers' would never work.
        check_pepper(database, pepper)
        key, secret = issue_key(database, pepper, team, name, expires_at)
    if as_json:
        click.echo(msgspec.json.encode(issued(key, secret)))
    else:
        click.echo(f"{secret}\nKey {key.name} of team {key.team}. Keep it now: it is not shown again.")


@keys.command("list")
@click.option("--team", help="Only those of one team.")
def list_all(team: str | None) -> None:
    """List keys, without their secrets."""
    with opening.existing_database(opening.settings()) as database:
        team_id = None if team is None else teams.find(database, team).id
        found = store.list_all(database, team_id=team_id)
    table = Table("id", "name", "team", "created", "expires", "state", box=box.SIMPLE_HEAD)
    for key in found:
        times = (_time(key.created_at), _time(key.expires_at))
        table.add_row(key.id, key.name, key.team, *times, _state(key))
    opening.console().print(table)


@keys.command()
@click.argument("key")
def revoke(key: str) -> None:
    """End a key, by its id or name; requests with it are refused within five seconds."""
    with opening.existing_database(opening.settings()) as database:
        revoked = store.revoke(database, _reference(key), clock.now())
    click.echo(f"key {revoked.name} ({revoked.id}) of team {revoked.team} is revoked")


@keys.command("set")
@click.argument("key")
@click.option(
    "--stream-usage",
    type=click.Choice([*MODES, "default"]),
    required=True,
    help="How the key's streams are metered; default: as the upstream and the settings say.",
)
def change(key: str, stream_usage: str) -> None:
    """Change a key, by its id or name; it takes effect within five seconds."""
    mode = None if stream_usage == "default" else stream_usage
    with opening.existing_database(opening.settings()) as database:
        changed = store.change(database, _reference(key), stream_usage=mode)
    click.echo(f"key {changed.name} ({changed.id}): stream usage {stream_usage}")


def _reference(text: str) -> str:
    # Whoever pastes a whole key means the key; its secret part is of no use here.
    return text.split("_")[1] if text.startswith("mtr_") and text.count("_") > 1 else text


def _time(instant: datetime | None) -> str:
    return "-" if instant is None else instant.isoformat(timespec="minutes")


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= clock.now()
    return "expired" if expired else "in use"
