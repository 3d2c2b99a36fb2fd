"""`meter prices reprice`."""

from typing import Any

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.actions import clock, command_line
from meter.app.rating import catalogs
from meter.app.repricing import reprice as run
from meter.cli import opening
from meter.core.corrections import given_cause
from meter.core.prices import PriceBook
from meter.core.repricing import Asked, Repricing, columns, selection
from meter.store import prices, teams

_SHOWN = (
    ("events", "events"),
    ("unpriced_before", "unpriced before"),
    ("old_cost_usd", "old USD"),
    ("new_cost_usd", "new USD"),
    ("difference_usd", "difference USD"),
)


@click.command()
@click.option("--since", required=True, metavar="DATE", help="Events from this day or time on.")
@click.option("--until", metavar="DATE", help="Up to, not including.  [default: now]")
@click.option("--model", metavar="PATTERN", help="Only these models, such as 'openai/*'.  [default: all]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone, such as Europe/Berlin.")
@click.option("--apply", "applied", is_flag=True, help="Append the corrections; without it nothing changes.")
@click.option("--reason", default="re-rated", show_default=True, help="Why; kept with every correction.")
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def reprice(  # noqa: PLR0913, PLR0917 (click passes an argument an option)
    since: str,
    until: str | None,
    model: str | None,
    tz: str,
    applied: bool,  # noqa: FBT001 (click's flag)
    reason: str,
    shape: str,
) -> None:
    """Rate events again by the prices of now, and show or append the differences."""
    asked = selection(Asked(since=since, until=until, tz=tz, model=model), clock.now())
    cause = given_cause(command_line(), reason)
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        book = PriceBook(prices.load(database), catalogs(configured))
        told = run(database, book, asked, cause, clock.now, apply=applied)
        names = {team.id: team.name for team in teams.list_all(database)}
    if shape == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(_as_json(told, names, applied=applied)), indent=2))
    else:
        _print(told, names, applied=applied)


def _as_json(told: Repricing, names: dict[str, str], *, applied: bool) -> dict[str, Any]:
    rows = [
        {"day": day, "team": names.get(team, team), "team_id": team, "model": model} | columns(difference)
        for (day, team, model), difference in told.rows()
    ]
    return {
        "applied": applied,
        "rows": rows,
        "total": columns(told.total),
        "of_closed_months": columns(told.of_closed_months),
        "looked_at": told.looked_at,
        "still_unpriced": told.still_unpriced,
        "repeated": told.repeated,
    }


def _print(told: Repricing, names: dict[str, str], *, applied: bool) -> None:
    if told.total.events:
        _print_table(told, names)
        if told.of_closed_months.events:
            click.echo(_closed(told))
        click.echo(
            f"Corrections appended: {told.total.events:,}."
            if applied
            else "Nothing has been changed; --apply appends these as corrections."
        )
    else:
        click.echo(f"No difference to what the price book says. Events looked at: {told.looked_at:,}.")
    if told.still_unpriced:
        click.echo(f"Events without a price still: {told.still_unpriced:,}; 'meter explain' says why.")
    if told.repeated:
        click.echo(
            f"Events that stay as they are, since the same price version has corrected them before: "
            f"{told.repeated:,}. Set the price once more to get a new version."
        )


def _print_table(told: Repricing, names: dict[str, str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    for name, footer in (("day", "total"), ("team", ""), ("model", "")):
        table.add_column(name, footer=footer, overflow="fold")
    total = _cells(columns(told.total))
    for (_, heading), footer in zip(_SHOWN, total, strict=True):
        table.add_column(heading, footer=footer, justify="right")
    for (day, team, model), difference in told.rows():
        table.add_row(day, names.get(team, team), model, *_cells(columns(difference)))
    opening.console().print(table)


def _cells(values: dict[str, Any]) -> list[str]:
    shown = values | {"old_cost_usd": values["old_cost_usd"] or "unpriced"}
    return [f"{shown[name]:,}" if isinstance(shown[name], int) else shown[name] for name, _ in _SHOWN]


def _closed(told: Repricing) -> str:
    values = columns(told.of_closed_months)
    return (
        f"Of it corrections of closed months, which count when they are posted: {values['events']:,}, "
        f"{values['difference_usd']} USD."
    )
