"""Prices as people read and write them: decimal strings in USD per million tokens, the unit in every name.

The admin API, the CSV file and, behind its options, the command line all say `prompt_usd_per_mtok`; only here
does that become picodollars a token, and back.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from meter.core.money import (
    format_usd_per_mtok,
    format_usd_per_request,
    parse_usd_per_mtok,
    parse_usd_per_request,
)
from meter.core.prices import REQUEST, Hours, LongContext, Price, Rates, tier_of
from meter.core.tariffs import KINDS

SUFFIX = "_usd_per_mtok"
REQUEST_FIELD = "request_usd"
FIELDS: Mapping[str, str] = {**{kind: f"{kind}{SUFFIX}" for kind in KINDS}, REQUEST: REQUEST_FIELD}
MODEL_LENGTH_MAX = 256
NAME_LENGTH_MAX = 64
TOKENS_MAX = 1_000_000_000


class AmountError(ValueError):
    """One field of a price that cannot be used."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Amounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens by kind, as decimal strings; a kind that is not given has no price."""

    prompt_usd_per_mtok: str | None = None
    cached_usd_per_mtok: str | None = None
    """Not given: as the prompt."""
    cache_write_usd_per_mtok: str | None = None
    cache_write_1h_usd_per_mtok: str | None = None
    input_audio_usd_per_mtok: str | None = None
    completion_usd_per_mtok: str | None = None
    output_audio_usd_per_mtok: str | None = None
    request_usd: str | None = None
    """USD for each request, on top of its tokens."""


class LongContextAmounts(Amounts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the whole request costs where its prompt is longer; what is not given stays as it is below."""

    above_tokens: int


class NewPrice(Amounts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of the price of one model, as somebody asks for it."""

    model: str
    upstream: str = ""
    """The one upstream that it is for; empty: any."""
    service_tier: str = ""
    """Empty: the standard tier."""
    effective_from: datetime | None = None
    """Not given: in a moment, or from the beginning where the model never had a price."""
    max_output_tokens: int | None = None
    long_context: tuple[LongContextAmounts, ...] = ()
    note: str = ""

    @property
    def has_amounts(self) -> bool:
        """Say whether it names any price."""
        return bool(self.long_context) or any(getattr(self, field) is not None for field in FIELDS.values())


class ShownPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it is shown: amounts in USD per million tokens."""

    id: int
    catalog: str
    """The price list that it is from; empty is your own."""
    upstream: str
    model: str
    service_tier: str
    effective_from: datetime
    hours_utc: str | None
    prompt_usd_per_mtok: str | None
    cached_usd_per_mtok: str | None
    cache_write_usd_per_mtok: str | None
    cache_write_1h_usd_per_mtok: str | None
    input_audio_usd_per_mtok: str | None
    completion_usd_per_mtok: str | None
    output_audio_usd_per_mtok: str | None
    request_usd: str | None
    long_context: tuple[LongContextAmounts, ...]
    max_output_tokens: int | None
    source: str
    created_at: datetime
    created_by: str
    note: str


def price_of(asked: NewPrice, *, effective_from: datetime, source: str, created_at: datetime) -> Price:
    """Make a version of the operator's own; raises `AmountError` on the first thing that is wrong."""
    check_names(asked)
    if asked.prompt_usd_per_mtok is None:
        raise AmountError(FIELDS["prompt"], "is missing: without it nothing that the model does has a price")
    rates = _rates(asked)
    return Price(
        id=0,
        catalog="",
        upstream=asked.upstream,
        model=asked.model,
        service_tier=tier_of(asked.service_tier),
        effective_from=effective_from.astimezone(UTC),
        rates=rates,
        long_context=_long_context(asked, rates),
        max_output_tokens=asked.max_output_tokens,
        source=source,
        created_at=created_at,
        note=asked.note,
    )


def shown(price: Price) -> ShownPrice:
    """Show a version."""
    return ShownPrice(
        id=price.id,
        catalog=price.catalog,
        upstream=price.upstream,
        model=price.model,
        service_tier=price.service_tier,
        effective_from=price.effective_from,
        hours_utc=None if price.hours is None else show_hours(price.hours),
        **amounts_of(price.rates),
        long_context=tuple(
            LongContextAmounts(above_tokens=long.above_tokens, **amounts_of(long.rates))
            for long in price.long_context
        ),
        max_output_tokens=price.max_output_tokens,
        source=price.source,
        created_at=price.created_at,
        created_by=price.created_by,
        note=price.note,
    )


def amounts_of(rates: Rates) -> dict[str, Any]:
    """Write rates as fields and decimal strings; what has no price is `None`."""
    found = {FIELDS[kind]: _shown_rate(getattr(rates, kind)) for kind in KINDS}
    return found | {REQUEST_FIELD: format_usd_per_request(rates.request) if rates.request else None}


def show_hours(hours: Hours) -> str:
    """Write a part of the day as `01:00-04:00`."""
    return "-".join(
        f"{minute // 60:02d}:{minute % 60:02d}" for minute in (hours.start_minute, hours.end_minute)
    )


def check_count(field: str, count: int | None) -> int | None:
    """Check a number of tokens."""
    if count is not None and not 0 < count <= TOKENS_MAX:
        raise AmountError(field, f"must be a number of tokens, 1 to {TOKENS_MAX}, not {count}")
    return count


def check_step(step: LongContextAmounts) -> None:
    """Check a step by itself; raises `AmountError`."""
    check_count("above_tokens", step.above_tokens)
    _rates(step)


def check_names(asked: NewPrice) -> None:
    """Check everything but the amounts; raises `AmountError`."""
    names = (
        ("model", asked.model, MODEL_LENGTH_MAX),
        ("upstream", asked.upstream, NAME_LENGTH_MAX),
        ("service_tier", asked.service_tier, NAME_LENGTH_MAX),
    )
    for field, name, length_max in names:
        if len(name) > length_max or not name.isprintable() or name != name.strip():
            raise AmountError(field, f"must have at most {length_max} printable characters, not {name!r}")
    if not asked.model:
        raise AmountError("model", "is missing")
    if "*" in asked.model:
        raise AmountError("model", f"{asked.model!r} would be a pattern; a price is of one model")
    if asked.effective_from is not None and asked.effective_from.tzinfo is None:
        raise AmountError("effective_from", "must have its offset from UTC, such as 2026-12-01T00:00:00Z")
    check_count("max_output_tokens", asked.max_output_tokens)


def _shown_rate(rate: int | None) -> str | None:
    return None if rate is None else format_usd_per_mtok(rate)


def _rates(amounts: Amounts, below: Rates | None = None) -> Rates:
    values: dict[str, int | None] = {} if below is None else msgspec.structs.asdict(below)
    for kind, field in FIELDS.items():
        text = getattr(amounts, field)
        if text is not None:
            values[kind] = _parse(field, text)
    return Rates(**values)  # type: ignore[arg-type]  # a fee that was given is a number


def _parse(field: str, text: str) -> int:
    try:
        return parse_usd_per_request(text) if field == REQUEST_FIELD else parse_usd_per_mtok(text)
    except ValueError as fault:
        raise AmountError(field, str(fault)) from None


def _long_context(asked: NewPrice, rates: Rates) -> tuple[LongContext, ...]:
    found: dict[int, LongContext] = {}
    below = rates
    for amounts in sorted(asked.long_context, key=lambda each: each.above_tokens):
        above = check_count("above_tokens", amounts.above_tokens) or 0
        if above in found:
            raise AmountError("above_tokens", f"{above} is there twice")
        below = _rates(amounts, below)
        found[above] = LongContext(above_tokens=above, rates=below)
    return tuple(found.values())
