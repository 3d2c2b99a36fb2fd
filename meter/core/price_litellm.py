"""Prices from LiteLLM's `model_prices_and_context_window.json`, which are in USD per token.

Its numbers are read from their text, so that `1.25e-07` is exact. It gives no dates. A price of 0 there is a
price of 0 here; what has no price for prompt tokens (pictures, hours of audio) is left out and counted.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from meter.core.money import DIGITS, USD_PER_MTOK_MAX, USD_PER_REQUEST_MAX
from meter.core.price_changes import UNDATED
from meter.core.price_csv import FileFaults
from meter.core.prices import REQUEST, LongContext, Price, Rates

_KINDS: Mapping[str, str] = {
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost": "cache_write",
    "cache_read_input_token_cost": "cached",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_request": REQUEST,
    "input_cost_per_token": "prompt",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_token": "completion",
}
_MEMBER = re.compile(rf"({'|'.join(_KINDS)})(?:_above_(\d{{1,6}})k_tokens)?(?:_(flex|priority))?")
# Not a model: it explains the others.
_SPECIMEN = "sample_spec"
_PICODOLLARS = Decimal(10) ** DIGITS
_TOKENS_OF_K = 1000


class Reading(NamedTuple):
    """What is in a file."""

    versions: list[Price]
    skipped: int
    """Entries that are not priced by the token."""


class _Amount(NamedTuple):
    kind: str
    above: int
    tier: str
    rate: int
    exact: bool


def read_litellm(text: str, *, source: str, now: datetime) -> Reading:
    """Read the versions of a file, all of them `UNDATED`; raises `FileFaults`."""
    document = _document(text)
    faults: list[str] = []
    versions: list[Price] = []
    skipped = 0
    for model, entry in document.items():
        if model == _SPECIMEN:
            continue
        if not isinstance(entry, dict):
            faults.append(f"{model}: must be an object")
            continue
        found = list(_versions(model, entry, source, now, faults))
        versions += found
        skipped += not found
    if faults:
        raise FileFaults(faults)
    return Reading(versions, skipped)


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text.removeprefix("\ufeff"), parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as fault:
        raise FileFaults([f"is no JSON: {fault}"]) from None
    if not isinstance(document, dict):
        raise FileFaults(["must be an object of models"])
    return document


def _versions(
    model: str, entry: Mapping[str, Any], source: str, now: datetime, faults: list[str]
) -> Iterator[Price]:
    before = len(faults)
    amounts = list(_amounts(model, entry, faults))
    limit = _limit(model, entry, faults)
    standard = [amount for amount in amounts if not amount.tier]
    if len(faults) > before or "prompt" not in {amount.kind for amount in standard if not amount.above}:
        return
    for tier in sorted({amount.tier for amount in amounts}):
        # A tier has what it does not say itself from the standard one.
        own = [*standard, *(amount for amount in amounts if tier and amount.tier == tier)]
        rounded = sorted({amount.kind for amount in own if not amount.exact})
        yield Price(
            id=0,
            catalog="",
            model=model,
            service_tier=tier,
            effective_from=UNDATED,
            rates=_rates(own, 0),
            long_context=tuple(
                LongContext(above_tokens=step, rates=_rates(own, step))
                for step in sorted({amount.above for amount in own} - {0})
            ),
            max_output_tokens=limit,
            source=source,
            created_at=now,
            note=f"rounded to a picodollar a token: {', '.join(rounded)}" if rounded else "",
        )


def _rates(amounts: list[_Amount], step: int) -> Rates:
    """Take the last amount of each kind up to a step: later ones of the list are surer."""
    found: dict[str, int] = {}
    for amount in sorted(amounts, key=lambda each: each.above):
        if amount.above <= step:
            found[amount.kind] = amount.rate
    return Rates(**found)


def _amounts(model: str, entry: Mapping[str, Any], faults: list[str]) -> Iterator[_Amount]:
    for name, value in entry.items():
        member = _MEMBER.fullmatch(name)
        if member is None or value is None:
            continue
        base, above, tier = member.groups()
        usd_max = USD_PER_REQUEST_MAX if _KINDS[base] == REQUEST else USD_PER_MTOK_MAX / 10**6
        if not isinstance(value, Decimal) or not 0 <= value <= usd_max:
            faults.append(f"{model}, {name}: must be a number of USD, 0 to {usd_max:g}, not {value}")
            continue
        exact = value * _PICODOLLARS
        rate = int(exact.to_integral_value(ROUND_HALF_UP))
        yield _Amount(_KINDS[base], int(above or 0) * _TOKENS_OF_K, tier or "", rate, rate == exact)


def _limit(model: str, entry: Mapping[str, Any], faults: list[str]) -> int | None:
    limit = entry.get("max_output_tokens")
    if limit is None:
        return None
    if not isinstance(limit, Decimal) or limit != int(limit) or not 0 <= limit < 10**9:
        faults.append(f"{model}, max_output_tokens: must be a number of tokens, not {limit!r}")
        return None
    return int(limit) or None
