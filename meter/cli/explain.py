"""`meter explain`."""

from collections.abc import Iterator
from datetime import datetime

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.explaining import explain_event
from meter.app.rating import catalogs
from meter.cli import opening
from meter.core.explain import Correction, Explanation, Item, Rating, Version

UNKNOWN = "unpriced"


@click.command()
@click.argument("event")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def explain(event: str, as_json: bool) -> None:  # noqa: FBT001 (click's flag)
    """Show what an event costs and why, by its id (the answer's x-meter-request-id)."""
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        found = explain_event(database, catalogs(configured), event)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    _print_fields(_facts(found))
    if found.rating is not None:
        _print_rating(found.rating)
    if found.reserved_usd is not None:
        why = "charged by a strict budget, since nobody knows what it used"
        click.echo(f"\nreserved, USD         {found.reserved_usd}   ({why})")
    click.echo(f"\nrecorded cost, USD    {found.recorded_cost_usd or UNKNOWN}")
    if found.upstream_cost_usd is not None:
        click.echo(f"the upstream's own    {found.upstream_cost_usd}   ({found.upstream_cost_source})")
    for correction in found.corrections:
        _print_correction(correction)
    if found.corrections:
        click.echo(f"\ncost now, USD         {found.cost_usd or UNKNOWN}")
    if found.unpriced is not None:
        click.echo(f"\nunpriced: {found.unpriced.why};\n{found.unpriced.what_to_do}")


def _facts(found: Explanation) -> Iterator[tuple[str, object]]:
    yield "event", found.event_id
    yield "team", f"{found.team} ({found.team_id})"
    yield "key", f"{found.key} ({found.key_id})"
    yield "route", f"{found.route}{', streamed' if found.stream else ''}, upstream {found.upstream}"
    yield "model requested", found.model_requested
    yield "model served", found.model_served or "the answer names none"
    yield "service tier", found.service_tier or "standard"
    yield "outcome", f"{found.outcome}, status {found.status or 'none'}"
    yield "usage source", found.usage_source
    yield "started", _time(found.started_at)
    yield "posted", _time(found.posted_at)
    if found.counted_at is not None:
        yield "counted", f"{_time(found.counted_at)}, as the month in which it started was closed"
    yield (
        "tokens",
        ", ".join(
            f"{name.removesuffix('_tokens')} {count:,}" for name, count in found.tokens.items() if count
        )
        or "none",
    )
    yield "anomalies", ", ".join(found.anomalies) or "none"


def _print_fields(fields: Iterator[tuple[str, object]]) -> None:
    for name, value in fields:
        click.echo(f"{name:<21} {value}")


def _print_rating(rating: Rating) -> None:
    click.echo()
    _print_fields(_origin(rating))
    table = Table("kind", box=box.SIMPLE_HEAD, show_footer=rating.sum_usd is not None)
    for heading, footer in (("quantity", ""), ("USD each", "sum"), ("USD", rating.sum_usd or "")):
        table.add_column(heading, footer=footer, justify="right")
    for item in rating.items:
        table.add_row(item.kind, f"{item.quantity:,}", _rate(item), item.amount_usd or "unknown")
    if table.row_count:
        opening.console().print(table)


def _origin(rating: Rating) -> Iterator[tuple[str, object]]:
    version = rating.version
    if version is None:
        yield "price", f"version {rating.price_id}, which is not in the book any more"
        return
    yield "price", f"version {version.id} of {version.model}{_tier(version)}, {_list(version)}"
    hours = f", from {version.hours.replace('-', ' to ')} UTC each day" if version.hours else ""
    yield "in effect from", f"{_time(version.effective_from)}{hours}"
    yield "added", f"{_time(version.created_at)}{_by(version)}, source {version.source}"
    if version.note:
        yield "note", version.note
    yield "found by", version.found_by or "a rule that the configuration no longer has"
    if rating.above_tokens is not None:
        yield "long context", f"the rates of prompts of more than {rating.above_tokens:,} tokens"


def _print_correction(correction: Correction) -> None:
    click.echo(f"\ncorrection, USD       {correction.difference_usd}")
    click.echo(f"posted                {_time(correction.posted_at)} by {correction.actor or 'nobody'}")
    if correction.counted_at is not None:
        click.echo("counted               then, as the month in which the event started was closed")
    click.echo(f"reason                {correction.reason or 'none given'}")
    if correction.rating is not None:
        _print_rating(correction.rating)


def _rate(item: Item) -> str:
    if item.amount_usd is None:
        return "no price"
    if item.usd_per_request is not None:
        return f"{item.usd_per_request} a request"
    return f"{item.usd_per_million_tokens} a million"


def _tier(version: Version) -> str:
    return f", tier {version.service_tier}" if version.service_tier else ""


def _list(version: Version) -> str:
    if version.catalog:
        return f"list of {version.catalog}"
    return f"the operator's own for {version.upstream}" if version.upstream else "the operator's own"


def _by(version: Version) -> str:
    return f" by {version.created_by}" if version.created_by else ""


def _time(instant: datetime) -> str:
    return instant.isoformat(sep=" ", timespec="microseconds")
