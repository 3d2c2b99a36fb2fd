"""`meter prices`: the price book, by hand."""

from datetime import UTC, datetime

import click
import msgspec

from meter.app.actions import clock, command_line
from meter.app.pricing import list_prices, set_price
from meter.app.rating import catalogs
from meter.cli import opening
from meter.cli.price_import import import_prices
from meter.cli.price_table import UNIT, amounts, day, missing, price_table
from meter.cli.reprice import reprice
from meter.core.period import parse_instant
from meter.core.price_amounts import REQUEST_FIELD, SUFFIX, AmountError, NewPrice
from meter.core.price_listing import Asked, Listing
from meter.core.prices import Price
from meter.core.tariffs import KINDS

# The fields of a price, and the options that are not named after them.
_FIELDS = {
    REQUEST_FIELD: "request",
    "max_output_tokens": "max_output",
    "service_tier": "tier",
    "upstream": "upstream",
    "note": "note",
}
_OTHER_FIELDS = {"model": "MODEL", "effective_from": "--from", "above_tokens": "--above"}
_KINDS_ABOVE = ("prompt", "cached", "cache_write", "completion")


@click.group()
def prices() -> None:
    """Look at prices, and set them: in USD per million tokens."""


prices.add_command(reprice)
prices.add_command(import_prices)


@prices.command("list")
@click.option("--model", metavar="NAME", help="A model, or a pattern such as 'anthropic/*'.")
@click.option("--at", "at", metavar="DATE", help="What counts then, in UTC.  [default: now]")
@click.option("--all", "every", is_flag=True, help="Also what counted before, and what is to come.")
def list_all(model: str | None, at: str | None, every: bool) -> None:  # noqa: FBT001 (click's flag)
    """Show your own prices, or with --model those of a model or a pattern, in USD per million tokens.

    Of a model's name without * the first row is what counts; the price lists below it would come next.
    """
    when = clock.now() if at is None else parse_instant(at, UTC)
    configured = opening.settings()
    with opening.existing_database(configured) as database:
        found = list_prices(database, catalogs(configured), Asked(model, when, every))
    if found.prices:
        opening.console().print(price_table(found.prices))
    for sentence in _about(found, model):
        click.echo(sentence)


@prices.command("set")
@click.argument("model")
@click.option("--prompt", metavar="USD", help="Prompt tokens that were not cached.")
@click.option("--cached", metavar="USD", help="Prompt tokens from a cache.  [default: as the prompt]")
@click.option("--completion", metavar="USD", help="Tokens of the answer, with those of reasoning.")
@click.option("--cache-write", metavar="USD", help="Prompt tokens written to a cache for minutes.")
@click.option("--cache-write-1h", metavar="USD", help="Prompt tokens written to a cache for an hour.")
@click.option("--input-audio", metavar="USD", help="Audio tokens of the prompt.")
@click.option("--output-audio", metavar="USD", help="Audio tokens of the answer.")
@click.option("--request", metavar="USD", help="A fee for each request; USD, not per million.")
@click.option(
    "--above", type=int, metavar="TOKENS", help="From prompts longer than this on, the whole request"
)
@click.option("--prompt-above", metavar="USD", help="  costs this for the prompt,")
@click.option("--cached-above", metavar="USD", help="  this for what is cached,")
@click.option("--cache-write-above", metavar="USD", help="  this for cache writes,")
@click.option("--completion-above", metavar="USD", help="  and this for the answer.  [default: as below it]")
@click.option("--max-output", type=int, metavar="TOKENS", help="The longest answer the model can give.")
@click.option("--tier", default="", metavar="NAME", help="Only for this service tier, such as flex.")
@click.option("--upstream", default="", metavar="NAME", help="Only for this upstream.")
@click.option(
    "--from", "start", metavar="DATE", help="From this day or time on, in UTC.  [default: see below]"
)
@click.option("--note", default="", metavar="TEXT", help="Why; it is kept with the price.")
def set_one(model: str, start: str | None, **given: str | int | None) -> None:
    """Set the price of MODEL: a new version, which takes the place of the one before; nothing is overwritten.

    Amounts are in USD per million tokens: 3 is 3 USD for 1,000,000 tokens. 0 is free. Tokens of a kind
    without a price leave their request unpriced. With --max-output alone, the prices stay as they are.

    Without --from it holds from 5 seconds from now on, or, where the model never had a price, from the
    beginning, so that `meter prices reprice` can rate what was unpriced.
    """
    configured = opening.settings()
    try:
        asked = _asked(model, None if start is None else parse_instant(start, UTC), given)
        with opening.existing_database(configured) as database:
            added = set_price(database, catalogs(configured), command_line(), asked)
    except AmountError as fault:
        raise ValueError(f"{_option(fault.field)}: {fault.reason}") from None
    for sentence in _told(added):
        click.echo(sentence)
    if asked.upstream and asked.upstream not in {entry.name for entry in configured.upstreams}:
        click.echo(f"Note that no upstream is named {asked.upstream!r} in this configuration.")


def _asked(model: str, start: datetime | None, given: dict[str, str | int | None]) -> NewPrice:
    above = given["above"]
    upper = {f"{kind}{SUFFIX}": given[f"{kind}_above"] for kind in _KINDS_ABOVE}
    if above is None and any(text is not None for text in upper.values()):
        raise AmountError("above_tokens", "is missing: from how many tokens of the prompt on?")
    values: dict[str, object] = {f"{kind}{SUFFIX}": given[kind] for kind in KINDS}
    values |= {field: given[name] for field, name in _FIELDS.items()}
    values |= {"model": model, "effective_from": start}
    values["long_context"] = () if above is None else ({"above_tokens": above} | upper,)
    return msgspec.convert(values, NewPrice)


def _option(field: str) -> str:
    name = _FIELDS.get(field, field.removesuffix(SUFFIX))
    return _OTHER_FIELDS.get(field, f"--{name.replace('_', '-')}")


def _told(added: tuple[Price, ...]) -> list[str]:
    """Say what was set, from when on it holds, and what is left to do."""
    sentences = []
    for price in added:
        where = "".join(
            f", {what} {name}"
            for what, name in (("tier", price.service_tier), ("upstream", price.upstream))
            if name
        )
        sentences.append(
            f"price {price.id} of {price.model}{where}, from {day(price.effective_from)} on (UTC)"
        )
        sentences.append(f"  {UNIT}: {amounts(price.rates)}")
        sentences += [
            f"  prompts above {step.above_tokens} tokens: {amounts(step.rates)}"
            for step in price.long_context
        ]
    start = added[0].effective_from
    lacking = missing(added[0].rates)
    if lacking:
        sentences.append(f"Requests that use {_listed(lacking)} stay unpriced.")
    if start < clock.now():
        since = start.strftime("%Y-%m-%d")
        sentences.append(
            f"What is in the ledger stays as it is; rate it anew: meter prices reprice --since {since}"
        )
    return sentences


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _about(found: Listing, model: str | None) -> list[str]:
    sentences = []
    if model is None:
        own = "These are your own prices." if found.prices else "You have set no prices of your own."
        sentences.append(
            f"{own} Price lists have {found.listed} more models: meter prices list --model 'anthropic/*'"
        )
    elif not found.prices:
        sentences.append(
            f"No price is known for {model}. Set one: meter prices set MODEL --prompt USD --completion USD"
        )
    if found.to_come:
        sentences.append(f"Versions that begin later: {found.to_come}; --all shows them.")
    return sentences
