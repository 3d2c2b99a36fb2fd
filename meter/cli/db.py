"""`meter db`: bring the database's tables to the version that this meter expects."""

import click

from meter.app.actions import clock
from meter.app.seeding import seed
from meter.cli import opening
from meter.cli.migrations import STATEMENT_SECONDS, bring_up_to_date
from meter.store import revision


@click.group()
def db() -> None:
    """Look after the database's tables."""


@db.command()
@click.option(
    "--statement-timeout",
    type=click.FloatRange(min=1),
    default=STATEMENT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="End a statement that takes longer, on PostgreSQL.",
)
def upgrade(statement_timeout: float) -> None:
    """Bring the tables to the version that this meter expects, and the first prices into them."""
    settings = opening.settings()
    with opening.database(settings) as database:
        before = revision.current(database)
        bring_up_to_date(database, statement_timeout)
        seed(settings, database, clock.now())
        click.echo(f"{before or 'empty'} -> {revision.current(database)}")


@db.command()
def current() -> None:
    """Show the version of the tables, and the one that this meter expects."""
    with opening.existing_database(opening.settings(), any_version=True) as database:
        click.echo(f"database {revision.current(database) or 'empty'}, expected {revision.HEAD}")
