"""`meter teams`."""

import click
from rich import box
from rich.table import Table

from meter.app.actions import command_line, register_team
from meter.cli import opening
from meter.store import teams as store


@click.group()
def teams() -> None:
    """Make and list teams."""


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
    table = Table("id", "name", "created", box=box.SIMPLE_HEAD)
    for team in found:
        table.add_row(team.id, team.name, team.created_at.isoformat(timespec="seconds"))
    opening.console().print(table)
