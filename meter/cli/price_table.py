"""How commands show prices: in USD per million tokens, and only the columns that something is in."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import box
from rich.table import Table

from meter.core.model_names import OWN
from meter.core.money import format_usd_per_mtok, format_usd_per_request
from meter.core.price_amounts import show_hours
from meter.core.prices import BEGINNING, Price, Rates
from meter.core.tariffs import KINDS

UNIT = "USD per million tokens"
_LABELS = {
    "prompt": "prompt",
    "cached": "cached",
    "cache_write": "cache write",
    "cache_write_1h": "cache write 1h",
    "input_audio": "audio in",
    "completion": "completion",
    "output_audio": "audio out",
}
_OF_THE_LIST = ("model", "list", "upstream", "tier", "from (UTC)", "hours (UTC)")
_OF_THE_VERSION = ("max output", "source")
_NUMBERS = {*_LABELS.values(), "USD a request", "max output"}


def price_table(prices: Sequence[Price]) -> Table:
    """Make a table of versions; a step at a long prompt is a row of its own below."""
    rows = [row for price in prices for row in _rows(price)]
    names = [*_OF_THE_LIST, *_LABELS.values(), "USD a request", *_OF_THE_VERSION]
    shown = [name for name in names if name == "model" or any(row.get(name) for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, title=f"{UNIT}", title_justify="left", title_style="")
    for name in shown:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in shown))
    return table


def amounts(rates: Rates) -> str:
    """Show rates in a line."""
    found = [f"{_LABELS[kind]} {text}" for kind, text in _amounts(rates).items()]
    fee = [f"and {format_usd_per_request(rates.request)} USD a request"] if rates.request else []
    return ", ".join([*found, *fee])


def changed_amounts(before: Price, after: Price) -> str:
    """Show what changes from one version to another: `prompt 3.00 -> 2.50`."""
    old, new = (_everything(price) for price in (before, after))
    names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
    changes = [f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names]
    return ", ".join(changes) or f"as before: {amounts(after.rates)}"


def day(instant: datetime) -> str:
    """Show an instant in UTC, as short as it can be."""
    instant = instant.astimezone(UTC)
    if instant == BEGINNING:
        return "the beginning"
    if (instant.hour, instant.minute, instant.second, instant.microsecond) == (0, 0, 0, 0):
        return instant.strftime("%Y-%m-%d")
    return instant.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def missing(rates: Rates) -> list[str]:
    """Name the kinds without a price, whose use leaves a request unpriced."""
    return [label for kind, label in _LABELS.items() if rates.of(kind) is None]


def _everything(price: Price) -> dict[str, str]:
    found = _cells(price.rates)
    for step in price.long_context:
        cells = _cells(step.rates).items()
        found |= {f"{name} above {step.above_tokens} tokens": text for name, text in cells}
    hours = {} if price.hours is None else {"hours": show_hours(price.hours)}
    limit = {} if price.max_output_tokens is None else {"max output": str(price.max_output_tokens)}
    return found | hours | limit


def _amounts(rates: Rates) -> dict[str, str]:
    values = {kind: getattr(rates, kind) for kind in KINDS}
    return {kind: format_usd_per_mtok(rate) for kind, rate in values.items() if rate is not None}


def _rows(price: Price) -> list[dict[str, str]]:
    first = {
        "model": price.model,
        "list": "own" if price.catalog == OWN else price.catalog,
        "upstream": price.upstream,
        "tier": price.service_tier,
        "from (UTC)": day(price.effective_from),
        "hours (UTC)": "" if price.hours is None else show_hours(price.hours),
        "max output": "" if price.max_output_tokens is None else str(price.max_output_tokens),
        "source": price.source,
    }
    steps = [
        {"model": f"  prompts above {step.above_tokens} tokens"} | _cells(step.rates)
        for step in price.long_context
    ]
    return [first | _cells(price.rates), *steps]


def _cells(rates: Rates) -> dict[str, str]:
    found = {_LABELS[kind]: text for kind, text in _amounts(rates).items()}
    return found | ({"USD a request": format_usd_per_request(rates.request)} if rates.request else {})
