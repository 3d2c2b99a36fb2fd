"""`meter prices import`: the difference first, and then, if that is wanted, the new versions."""

import sys
from pathlib import Path

import click
from rich import box
from rich.table import Table

from meter.app.actions import clock, command_line
from meter.app.price_import import Selection, Source, compare, read_file, read_installed, take_over
from meter.app.rating import catalogs
from meter.app.seeding import PackageUnreadable
from meter.cli import opening
from meter.cli.price_table import UNIT, amounts, changed_amounts, day
from meter.core.price_changes import Change, Difference

NEW_SHOWN_MAX = 30


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--model", default="*", metavar="PATTERN", help="Of a file, only the models of this pattern.")
@click.option(
    "--strip-prefix", default="", metavar="TEXT", help="Of a file, only names that begin so, without it."
)
@click.option(
    "--upstream", default="", metavar="NAME", help="The prices of the file are for this upstream only."
)
def import_prices(file: Path | None, yes: bool, **selected: str) -> None:  # noqa: FBT001 (click's flag)
    """Take prices over from FILE, or from the installed genai-prices package; shows the difference first.

    FILE is a CSV file whose columns are named after their unit (model, prompt_usd_per_mtok, ...), or
    LiteLLM's model_prices_and_context_window.json. Only what differs is added, as new versions: with the date
    that is given, else from 5 seconds from now on, or from the beginning for models that never had a price.
    """
    now = clock.now()
    configured = opening.settings()
    source = _read(file, Selection(**selected))
    lists = catalogs(configured)
    with opening.existing_database(configured) as database:
        found = compare(database, lists, source, now)
        _show(found, source)
        if not found.added:
            return
        if not yes and not sys.stdin.isatty():
            raise ValueError(
                "nothing was changed: without a terminal to ask on, say --yes to add these versions"
            )
        if not yes and not click.confirm(f"Add {_versions(len(found.added))}?"):
            click.echo("Nothing was changed.")
            return
        added = take_over(database, lists, command_line(), source)
    click.echo(f"Added {_versions(len(added))}. What is in the ledger stays as it is: meter prices reprice")


def _versions(count: int) -> str:
    return "1 version" if count == 1 else f"{count} versions"


def _read(file: Path | None, selection: Selection) -> Source:
    if file is not None:
        return read_file(file, selection, clock.now())
    if selection != Selection():
        raise ValueError("--model, --strip-prefix and --upstream choose from a file; name one")
    try:
        return read_installed(clock.now())
    except PackageUnreadable as fault:
        raise ValueError(f"the package genai-prices cannot be read: {fault}") from None


def _show(found: Difference, source: Source) -> None:
    counts = (
        ("new", len(found.new)),
        ("changed", len(found.changed)),
        ("gone", len(found.gone)),
        ("unchanged", found.unchanged),
        ("skipped, not priced by the token", source.skipped),
    )
    click.echo(
        f"{source.name}: {', '.join(f'{count} {name}' for name, count in counts if count) or 'nothing'}"
    )
    if found.new:
        _print_changes("New", found.new[:NEW_SHOWN_MAX])
        if len(found.new) > NEW_SHOWN_MAX:
            click.echo(f"  and {len(found.new) - NEW_SHOWN_MAX} more that are new\n")
    if found.changed:
        _print_changes("Changed", found.changed)
    if found.gone:
        names = sorted({f"{price.catalog}/{price.model}" for price in found.gone})
        click.echo(f"Gone from the list, whose last prices go on counting: {', '.join(names)}")


def _print_changes(heading: str, changes: tuple[Change, ...]) -> None:
    table = Table("model", "list", "tier", "from (UTC)", UNIT, box=box.SIMPLE_HEAD, title=heading)
    table.title_justify, table.title_style = "left", ""
    for change in changes:
        subject = change.subject
        for version in change.added:
            told = (
                amounts(version.rates) if change.before is None else changed_amounts(change.before, version)
            )
            where = f"{subject.catalog or 'own'}{f', {subject.upstream}' if subject.upstream else ''}"
            table.add_row(subject.model, where, subject.service_tier, day(version.effective_from), told)
    opening.console().print(table)
