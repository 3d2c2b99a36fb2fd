"""`meter teams`."""

import click
from rich import box
from rich.table import Table

from meter.app.actions import change_team, command_line, register_team
from meter.cli import limits, opening
from meter.store import teams as store


@click.group()
def teams() -> None:
    """Make, list and change teams."""


@teams.command()
@click.argument("name")
def create(name: str) -> None:
    """Make a team."""
    with opening.existing_database(opening.settings()) as database:
        team = register_team(database, command_line(), name)
    click.echo(f"team {team.name} ({team.id})")


@teams.command("list")
def list_all() -> None:
    """List all teams."""
    with opening.existing_database(opening.settings()) as database:
        found = store.list_all(database)
    table = Table("id", "name", "created", "limits", box=box.SIMPLE_HEAD)
    for team in found:
        created = team.created_at.isoformat(timespec="seconds")
        table.add_row(team.id, team.name, created, limits.shown(team.limits))
    opening.console().print(table)


@teams.command("set")
@click.argument("team")
@limits.limit_options
def change(team: str, **options: str | None) -> None:
    """Change a team's limits, by its id or name; they take effect within five seconds.

    They hold for all keys of the team together. What is not given stays as it is. default: as the settings
    say. none: no limit, whatever the settings say.
    """
    given = limits.changes(options)
    with opening.existing_database(opening.settings()) as database:
        changed = change_team(database, command_line(), team, given)
    click.echo(f"team {changed.name} ({changed.id}): limits {limits.shown(changed.limits)}")
