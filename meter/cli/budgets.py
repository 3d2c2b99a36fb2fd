"""`meter budgets`."""

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app import budgets as actions
from meter.app.actions import clock, command_line
from meter.cli import opening
from meter.core.alerts import Delivery
from meter.core.budget_drafts import Draft, Shown
from meter.core.budgets import PERIODS, THRESHOLDS, Enforcement, Measure
from meter.store import alerts, allowances

# Click would take an enumeration by the names of its members.
MEASURES = tuple(each.value for each in Measure)
ENFORCEMENTS = tuple(each.value for each in Enforcement)


@click.group()
def budgets() -> None:
    """Make, list and take away budgets."""


@budgets.command("set")
@click.option("--org", is_flag=True, help="For everything that this installation spends.")
@click.option("--team", metavar="T", help="For a team, by its name or id.")
@click.option("--key", metavar="K", help="For a key, by its name or id.")
@click.option(
    "--model", default="", metavar="PATTERN", help="For requested models such as 'openai/*'.  [default: any]"
)
@click.option("--limit", required=True, help="USD such as 50 or 0.25; or a number of tokens or requests.")
@click.option("--period", type=click.Choice(PERIODS), required=True)
@click.option("--tz", default="UTC", show_default=True, help="Whose days and months, such as Europe/Berlin.")
@click.option(
    "--measure",
    type=click.Choice([each.value for each in Measure]),
    default=Measure.COST.value,
    show_default=True,
)
@click.option(
    "--enforcement",
    type=click.Choice(ENFORCEMENTS),
    default=Enforcement.STANDARD.value,
    show_default=True,
    help="strict: never past the limit, by reserving the most that a request can use; standard: by what it "
    "will likely use; warn: only tells.",
)
@click.option(
    "--alert",
    "thresholds",
    multiple=True,
    type=int,
    default=THRESHOLDS,
    show_default=True,
    metavar="PERCENT",
    help="Tell when so much is spent; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def put(*, org: bool, as_json: bool, **written: object) -> None:
    """Make a budget, or change the one of the same owner, measure, period and models.

    It is live within five seconds, and begins with what has been spent in its window already.
    """
    owners = [
        name for name, given in (("org", org), ("team", written["team"]), ("key", written["key"])) if given
    ]
    if len(owners) != 1:
        raise ValueError("say whose budget it is: one of --org, --team T and --key K")
    draft = msgspec.convert(written, Draft)
    with opening.existing_database(opening.settings()) as database:
        made = actions.put(database, command_line(), draft)
    if as_json:
        click.echo(msgspec.json.encode(made))
    else:
        _print([made])


@budgets.command("list")
@click.option("--holders", is_flag=True, help="Show the processes that hold allowances.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def list_all(*, holders: bool, as_json: bool) -> None:
    """List budgets, and how they stand in their windows of now."""
    with opening.existing_database(opening.settings()) as database:
        if holders:
            _print_holders(allowances.list_holders(database, clock.now()))
            return
        found = actions.list_all(database, clock.now())
    if as_json:
        click.echo(msgspec.json.encode({"data": found}))
    else:
        _print(found)


@budgets.command("alerts")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def list_alerts(*, as_json: bool) -> None:
    """List the newest alerts, and whether the webhook was told."""
    with opening.existing_database(opening.settings()) as database:
        found = alerts.list_recent(database)
    if as_json:
        click.echo(msgspec.json.encode({"data": found}))
        return
    table = Table("at", "budget of", "reached", "limit", "spent", "webhook", box=box.SIMPLE_HEAD)
    for each in found:
        alert = each.alert
        numbers = (f"{alert.threshold} %", alert.limit, alert.spent)
        table.add_row(alert.at.isoformat(timespec="seconds"), alert.whose, *numbers, _told(each))
    opening.console().print(table)


def _told(delivery: Delivery) -> str:
    if delivery.delivered_at is not None:
        return f"told {delivery.delivered_at.isoformat(timespec='seconds')}"
    if not delivery.attempts:
        return "not yet told"
    again = (
        "given up" if delivery.next_at is None else f"again {delivery.next_at.isoformat(timespec='seconds')}"
    )
    return f"{delivery.attempts} failures, {again}: {delivery.last_error}"


@budgets.command()
@click.argument("budget")
def remove(budget: str) -> None:
    """Take a budget away, by its id."""
    with opening.existing_database(opening.settings()) as database:
        removed = actions.remove(database, command_line(), budget)
    click.echo(f"the budget of {removed.whose} is removed")


@budgets.command()
@click.argument("holder")
def release(holder: str) -> None:
    """Write off what a process holds whose journal is lost; it must not be running any more.

    What is in its journal and was never shipped is then missing from what is spent.
    """
    with opening.existing_database(opening.settings()) as database:
        count = actions.write_off(database, command_line(), holder)
    click.echo(f"{count} allowances of {holder} are free again")


def _print(found: list[Shown]) -> None:
    table = Table(
        "id",
        "owner",
        "models",
        "measure",
        "period",
        "enforcement",
        box=box.SIMPLE_HEAD,
        caption_justify="left",
    )
    for heading in ("limit", "spent", "reserved", "available"):
        table.add_column(heading, justify="right")
    table.add_column("window ends")
    table.add_column("at this rate")
    for each in found:
        owner = f"{each.owner_kind} {each.owner}".strip()
        period = each.period if each.tz == "UTC" else f"{each.period} ({each.tz})"
        end = "never" if each.window_end is None else each.window_end.isoformat(timespec="minutes")
        numbers = (each.limit, each.spent, each.reserved, each.available)
        kinds = (each.measure, period, each.enforcement)
        table.add_row(each.id, owner, each.model or "any", *kinds, *numbers, end, _prospect(each))
    opening.console().print(table)


def _prospect(budget: Shown) -> str:
    if budget.projected is None:
        return ""
    if budget.reached_at is None:
        return f"{budget.projected} in the end"
    return f"spent by {budget.reached_at.isoformat(timespec='minutes')}"


def _print_holders(found: list[allowances.Holder]) -> None:
    table = Table("holder", "last heard of", "allowances", "state", box=box.SIMPLE_HEAD)
    for each in found:
        state = "stranded until its journal is shipped" if each.stranded else "at work"
        table.add_row(each.holder, f"{each.silent_seconds:.0f} s ago", str(each.allowances), state)
    opening.console().print(table)
