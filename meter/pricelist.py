"""What the `genai-prices` package lists, as versions for the price book.

    python -m meter.pricelist

It is a program of its own: the package brings pydantic, a second HTTP client and 40 MB, which no server needs
once prices are in the database. Its data alone is read, none of its arithmetic and none of its matching:

- a model is known by its id and by the names that the package says are equal to it. A name that it says
  begins a model's name is taken as a name, not as a beginning;
- a price without a date holds from the beginning, one for hours of the day from the last date of its model,
  since the package does not say since when there are such hours;
- of variants, those of a service tier are taken. A `fast` request is answered as `priority`;
- a step at a length of the prompt is for the whole request;
- what is finer than a picodollar a token, which is noise of floats, is rounded, and the note says so.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version as installed_version
from typing import NamedTuple

import msgspec
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ConditionalPrice,
    MatchLogic,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from meter.core.model_names import CATALOGS
from meter.core.output_limits import max_output_tokens
from meter.core.prices import BEGINNING, REQUEST, Hours, LongContext, Price, Rates

PACKAGE = "genai-prices"
# The package's name of each kind; and how many picodollars are one of its units.
_KINDS: Mapping[str, str] = {
    "input_mtok": "prompt",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "output_mtok": "completion",
    "output_audio_mtok": "output_audio",
    "requests_kcount": REQUEST,
}
_PER_MTOK = 10**6
_PER_KCOUNT = 10**9
# In the order in which they are believed, where two of them are the same tier.
_TIERS: Mapping[str, tuple[str, ...]] = {
    "flex": ("flex",),
    "priority": ("priority", "fast"),
    "fast": ("fast",),
}

# Of one version: USD by the package's names of kinds.
Amounts = Mapping[str, Decimal | TieredPrices]


class _Version(NamedTuple):
    start: datetime
    hours: Hours | None
    amounts: Amounts


def main() -> None:
    """Write all versions to standard output, as MessagePack."""
    sys.stdout.buffer.write(msgspec.msgpack.encode(list(versions(data_snapshot.get_snapshot().providers))))


def versions(providers: Iterable[Provider]) -> Iterator[Price]:
    """Yield the versions of all models whose list is one that meter looks at."""
    source = f"{PACKAGE} {installed_version(PACKAGE)}"
    for provider in providers:
        if provider.id in CATALOGS:
            for name, model in _named(provider.models).items():
                yield from _prices(provider.id, name, model, source)


def _named(models: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
    """Sort models by their names; of two models with one name the first has it, ids before other names."""
    found = {model.id: model for model in models}
    for model in models:
        for name in _names(model.match):
            found.setdefault(name, model)
    return found


def _names(clause: MatchLogic) -> Iterator[str]:
    if isinstance(clause, ClauseEquals):
        yield clause.equals
    elif isinstance(clause, ClauseStartsWith):
        yield clause.starts_with
    elif isinstance(clause, ClauseOr):
        for part in clause.or_:
            yield from _names(part)


def _prices(catalog: str, name: str, model: ModelInfo, source: str) -> Iterator[Price]:
    standard = _standard(model)
    variants = {tier: _variants(model, keys) for tier, keys in _TIERS.items()}
    tiers = {"": standard} | {tier: _of_tier(standard, found) for tier, found in variants.items() if found}
    for tier, found in tiers.items():
        for version in found:
            rates, long_context, notes = _rates(version.amounts)
            if rates.prompt is None and rates.completion is None and not rates.request:
                continue  # It is sold by the hour or by the picture.
            yield Price(
                id=0,
                catalog=catalog,
                model=name,
                service_tier=tier,
                effective_from=version.start,
                hours=version.hours,
                rates=rates,
                long_context=long_context,
                max_output_tokens=max_output_tokens(catalog, name),
                source=source,
                created_at=BEGINNING,
                note="; ".join(notes),
            )


def _standard(model: ModelInfo) -> list[_Version]:
    """Return a model's versions, the surest of the same date last."""
    entries = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    # Where no date has come yet, the first entry counts.
    starts = [BEGINNING, *(_start(entry.constraint) for entry in entries[1:])]
    last = max(starts)
    found: list[_Version] = []
    for entry, start in zip(entries, starts, strict=True):
        if isinstance(entry.constraint, TimeOfDateConstraint):
            found.append(_Version(last, _hours(entry.constraint), _amounts(entry.prices)))
        else:
            # The package tries its entries from the last one: a later entry hides those before it.
            found = [earlier for earlier in found if earlier.start < start or earlier.hours is not None]
            found.append(_Version(start, None, _amounts(entry.prices)))
    return found


def _variants(model: ModelInfo, keys: tuple[str, ...]) -> list[PriceVariant]:
    wanted = [{"service_tier": key} for key in keys]
    found = [variant for variant in model.price_variants or () if variant.when in wanted]
    return sorted(found, key=lambda variant: wanted.index(variant.when))


def _of_tier(standard: list[_Version], variants: list[PriceVariant]) -> list[_Version]:
    """Put the prices of a tier over the standard ones, at each date from which either changes."""
    starts = sorted({_start(variant.constraint) for variant in variants})
    dates = {*starts, *(version.start for version in standard if version.start > starts[0])}
    return [
        _Version(date, version.hours, _over(version.amounts, variants, date))
        for date in sorted(dates)
        for version in _counting(standard, date)
    ]


def _counting(standard: list[_Version], date: datetime) -> list[_Version]:
    started = [version for version in standard if version.start <= date]
    whole = [version for version in started if version.hours is None][-1]
    return [whole, *(version for version in started if version.hours and version.start >= whole.start)]


def _over(amounts: Amounts, variants: list[PriceVariant], date: datetime) -> Amounts:
    found: dict[str, Decimal | TieredPrices] = {}
    for variant in variants:
        if _start(variant.constraint) <= date:
            found = {**_amounts(variant.prices), **found}
    return {**amounts, **found}


def _start(constraint: StartDateConstraint | TimeOfDateConstraint | None) -> datetime:
    if not isinstance(constraint, StartDateConstraint):
        return BEGINNING
    return datetime.combine(constraint.start_date, time(), tzinfo=UTC)


def _hours(constraint: TimeOfDateConstraint) -> Hours:
    start, end = (_minute(each) for each in (constraint.start_time, constraint.end_time))
    return Hours(start_minute=start, end_minute=end)


def _minute(local: time) -> int:
    aware = local if local.tzinfo else local.replace(tzinfo=UTC)
    instant = datetime.combine(BEGINNING.date(), aware).astimezone(UTC)
    return instant.hour * 60 + instant.minute


def _amounts(prices: ModelPrice) -> Amounts:
    return {name: price for name, price in vars(prices).items() if price is not None}


def _rates(amounts: Amounts) -> tuple[Rates, tuple[LongContext, ...], list[str]]:
    steps = {
        tier.start for price in amounts.values() if isinstance(price, TieredPrices) for tier in price.tiers
    }
    rounded: set[str] = set()
    base = _rates_at(amounts, 0, rounded)
    longer = tuple(
        LongContext(above_tokens=step, rates=_rates_at(amounts, step, rounded)) for step in sorted(steps)
    )
    unseen = sorted(amounts.keys() - _KINDS.keys())
    notes = [f"rounded to a picodollar a token: {', '.join(sorted(rounded))}"] if rounded else []
    notes += [f"also charged, and not told apart here: {', '.join(map(_plain, unseen))}"] if unseen else []
    return base, longer, notes


def _rates_at(amounts: Amounts, step: int, rounded: set[str]) -> Rates:
    """Return the rates of prompts longer than a step; of kinds that are used, which were rounded is added."""
    values: dict[str, int] = {}
    for name, kind in _KINDS.items():
        if name in amounts:
            exact = _at(amounts[name], step) * (_PER_KCOUNT if kind == REQUEST else _PER_MTOK)
            values[kind] = int(exact.to_integral_value(ROUND_HALF_UP))
            if values[kind] != exact:
                rounded.add(kind)
    return Rates(**values)


def _at(price: Decimal | TieredPrices, step: int) -> Decimal:
    if not isinstance(price, TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= step]
    return reached[-1] if reached else price.base


def _plain(unit: str) -> str:
    return unit.rpartition("_")[0].replace("_", " ")


if __name__ == "__main__":
    main()
