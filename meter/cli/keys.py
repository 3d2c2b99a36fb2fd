"""`meter keys`."""

from datetime import timedelta

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.actions import change_key, clock, command_line, issue_key, rotate_key, signed
from meter.cli import limits, opening, shown
from meter.core.period import after, parse_duration
from meter.core.stream_usage import MODES
from meter.core.unpriced import POLICIES
from meter.store import keys as store
from meter.store import teams
from meter.store.installation import check_pepper
from meter.web.keys import issued


@click.group()
def keys() -> None:
    """Make, list, change, rotate and revoke keys."""


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
        key, secret = issue_key(database, pepper, command_line(), team, name, expires_at)
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
    table = Table("id", "name", "team", "created", "expires", "state", "limits", box=box.SIMPLE_HEAD)
    for key in found:
        times = (shown.time(key.created_at), shown.time(key.expires_at))
        state = shown.state(key.expires_at, key.revoked_at, clock.now())
        table.add_row(key.id, key.name, key.team, *times, state, limits.shown(key.limits))
    opening.console().print(table)


@keys.command()
@click.argument("key")
@click.option("--grace", default="24h", show_default=True, help="How long the old one goes on: 24h, 7d, 0h.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def rotate(key: str, grace: str, as_json: bool) -> None:  # noqa: FBT001 (click's flag)
    """Make the successor of a key, by its id or name; the old one ends after the grace.

    The new key has the name and the settings of the old one, and lasts as long as that was made for.
    """
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        pepper = opening.pepper(configured)
        check_pepper(database, pepper)
        made, secret = rotate_key(database, pepper, command_line(), _reference(key), _grace(grace))
        old = store.find(database, made.rotated_from or "")
    if as_json:
        click.echo(msgspec.json.encode(issued(made, secret)))
    else:
        click.echo(f"{secret}\nKey {made.name} of team {made.team}. Keep it now: it is not shown again.")
        click.echo(f"The old one ({old.id}) ends at {shown.time(old.expires_at)}.")


@keys.command()
@click.argument("key")
def revoke(key: str) -> None:
    """End a key, by its id or name; requests with it are refused within five seconds."""
    with opening.existing_database(opening.settings()) as database:
        revoked = store.revoke(database, _reference(key), signed(command_line()))
    click.echo(f"key {revoked.name} ({revoked.id}) of team {revoked.team} is revoked")


@keys.command("set")
@click.argument("key")
@limits.limit_options
@click.option(
    "--stream-usage",
    type=click.Choice([*MODES, "default"]),
    help="How the key's streams are metered; default: as the upstream and the settings say.",
)
@click.option(
    "--unpriced",
    type=click.Choice([*POLICIES, "default"]),
    help="What becomes of requests for models without a price; block answers 403.",
)
def change(key: str, **options: str | None) -> None:
    """Change a key, by its id or name; it takes effect within five seconds.

    What is not given stays as it is. default: as the settings say. none: no limit, whatever the settings say.
    """
    given = limits.changes(options)
    with opening.existing_database(opening.settings()) as database:
        changed = change_key(database, command_line(), _reference(key), given)
    told = (
        f"limits {limits.shown(changed.limits)}",
        f"stream usage {changed.stream_usage or 'default'}",
        f"unpriced {changed.unpriced or 'default'}",
    )
    click.echo(f"key {changed.name} ({changed.id}): {', '.join(told)}")


def _grace(text: str) -> timedelta:
    return timedelta() if text.rstrip("mhdw") == "0" else parse_duration(text)


def _reference(text: str) -> str:
    return shown.public_id(text, "mtr_")
