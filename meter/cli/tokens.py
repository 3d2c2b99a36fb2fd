"""`meter tokens`."""

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.actions import clock, command_line, issue_token, signed
from meter.cli import opening, shown
from meter.core.access import Role
from meter.core.period import after
from meter.core.tokens import Terms
from meter.store import tokens as store
from meter.store.installation import check_pepper
from meter.web.tokens import issued


@click.group()
def tokens() -> None:
    """Make, list and revoke tokens of the control listener."""


@tokens.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="admin changes everything, viewer reads everything, metrics scrapes /metrics.",
)
@click.option("--team", help="Of a viewer: the one team that it sees, by name or id.  [default: all]")
@click.option("--name", help="What to call the token in the audit log.  [default: its id]")
@click.option("--expires", metavar="90d", help="When the token ends: 90d, 12h, 30m.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def create(role: str, team: str | None, name: str | None, expires: str | None, as_json: bool) -> None:  # noqa: FBT001 (click's flag)
    """Make a token. It is shown once and stored nowhere."""
    configured = opening.settings()
    terms = Terms(Role(role), team, name, None if expires is None else after(clock.now(), expires))
    with opening.existing_database(configured) as database:
        pepper = opening.pepper(configured)
        # A token under another pepper than the servers' would never work.
        check_pepper(database, pepper)
        made, secret = issue_token(database, pepper, command_line(), terms)
    if as_json:
        click.echo(msgspec.json.encode(issued(made, secret)))
    else:
        whose = f" of team {made.team}" if made.team else ""
        click.echo(f"{secret}\nToken {made.name}, {role}{whose}. Keep it now: it is not shown again.")


@tokens.command("list")
def list_all() -> None:
    """List tokens, without their secrets; the admin token of the data directory is none of them."""
    with opening.existing_database(opening.settings()) as database:
        found = store.list_all(database)
    table = Table("id", "name", "role", "team", "created", "expires", "state", box=box.SIMPLE_HEAD)
    for token in found:
        state = shown.state(token.expires_at, token.revoked_at, clock.now())
        times = (shown.time(token.created_at), shown.time(token.expires_at))
        table.add_row(token.id, token.name, token.role, token.team or "all", *times, state)
    opening.console().print(table)


@tokens.command()
@click.argument("token")
def revoke(token: str) -> None:
    """End a token, by its id or name; requests with it are refused within five seconds."""
    with opening.existing_database(opening.settings()) as database:
        revoked = store.revoke(database, shown.public_id(token, "mta_"), signed(command_line()))
    click.echo(f"token {revoked.name} ({revoked.id}) is revoked")
