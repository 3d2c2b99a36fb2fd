"""Why an event costs what it costs: every summand, the price version behind it, and each correction since.

All of it is values that are ready to be shown: amounts are exact decimal strings in USD.
"""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from meter.core.corrections import Account, Posted
from meter.core.events import UsageEvent, UsageSource
from meter.core.model_names import Place, rule
from meter.core.money import Picodollars, format_usd
from meter.core.prices import (
    REQUEST,
    RESERVATION_CHARGED,
    Hours,
    LineItem,
    Price,
    PriceBook,
    Quote,
    quote,
    tier_of,
)
from meter.core.tariffs import quantities

TOKENS_PER_MILLION = 10**6


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One summand: so much of a kind, at a rate."""

    kind: str
    quantity: int
    usd_per_million_tokens: str | None = None
    usd_per_request: str | None = None
    amount_usd: str | None
    """`None` where the version has no price for the kind."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a price, and how the event's model led to it."""

    id: int
    catalog: str
    """Whose list it is from; empty is the operator's own."""
    upstream: str
    """The one upstream that it holds for; empty is any."""
    model: str
    service_tier: str
    """Empty is the standard tier."""
    effective_from: datetime
    hours: str | None
    """The part of every day that it holds for, in UTC; `None` is all of it."""
    source: str
    created_at: datetime
    created_by: str
    note: str
    found_by: str | None
    """By which rule; `None` where it would not be found any more, as the configuration has changed."""


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """What the event comes to at one version of a price."""

    price_id: int
    version: Version | None
    """`None` where the book has lost it."""
    above_tokens: int | None
    """The rates are those of prompts longer than this."""
    items: list[Item]
    sum_usd: str | None
    """`None` where one of the items has no price."""


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the cost."""

    event_id: str
    posted_at: datetime
    counted_at: datetime | None
    actor: str | None
    reason: str | None
    difference_usd: str
    rating: Rating | None


class Unpriced(msgspec.Struct, frozen=True):
    """Why there is no cost, and what to do about it."""

    why: str
    what_to_do: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say about the cost of an event."""

    event_id: str
    team: str
    team_id: str
    key: str
    key_id: str
    route: str
    upstream: str
    upstream_id: str | None
    model_requested: str
    model_served: str | None
    service_tier: str | None
    stream: bool
    outcome: str
    status: int | None
    usage_source: str
    started_at: datetime
    posted_at: datetime
    counted_at: datetime | None
    ttfb_ms: int | None
    duration_ms: int | None
    end_user: str | None
    tags: tuple[str, ...]
    tokens: dict[str, int]
    anomalies: tuple[str, ...]
    rating: Rating | None
    """By the price that counted when it was recorded."""
    reserved_usd: str | None
    """What a strict budget charged in place of the sum, because nobody knows what was used."""
    recorded_cost_usd: str | None
    upstream_cost_usd: str | None
    upstream_cost_source: str | None
    corrections: list[Correction]
    unpriced: Unpriced | None
    cost_usd: str | None
    """What it costs now."""


class Knowledge(msgspec.Struct, frozen=True):
    """What explaining takes beside the event."""

    prices: Mapping[int, Price]
    book: PriceBook
    catalogs: Mapping[str, str]
    """The price list of each upstream that is a provider of its own."""


def explain(account: Account, team: str, key: str, known: Knowledge) -> Explanation:
    """Explain the cost of an event; `team` and `key` are what they are called."""
    event = account.event
    same = {
        name: getattr(event, name)
        for name in Explanation.__struct_fields__
        if name in UsageEvent.__struct_fields__
    }
    return Explanation(
        **same,
        team=team,
        key=key,
        posted_at=account.original.posted_at,
        tokens={name: getattr(event.usage, name) for name in event.usage.__struct_fields__},
        rating=_rating(event, event.price_id, known),
        reserved_usd=_usd(event.cost_bound) if RESERVATION_CHARGED in event.anomalies else None,
        recorded_cost_usd=_usd(event.cost),
        upstream_cost_usd=_usd(event.upstream_cost),
        corrections=[_correction(event, entry, known) for entry in account.corrections],
        unpriced=_unpriced(account, known),
        cost_usd=_usd(account.cost),
    )


def _correction(event: UsageEvent, entry: Posted, known: Knowledge) -> Correction:
    made = entry.event
    return Correction(
        event_id=made.event_id,
        posted_at=entry.posted_at,
        counted_at=made.counted_at,
        actor=made.actor,
        reason=made.reason,
        difference_usd=format_usd(Picodollars(made.cost or 0)),
        rating=_rating(event, made.price_id, known),
    )


def _rating(event: UsageEvent, price_id: int | None, known: Knowledge) -> Rating | None:
    if price_id is None:
        return None
    price = known.prices.get(price_id)
    if price is None:
        return Rating(price_id=price_id, version=None, above_tokens=None, items=[], sum_usd=None)
    quoted = quote(price, event.usage)
    passed = [long.above_tokens for long in price.long_context if event.prompt_tokens > long.above_tokens]
    return Rating(
        price_id=price_id,
        version=_version(event, price, known.catalogs.get(event.upstream)),
        above_tokens=passed[-1] if passed else None,
        items=[*map(_item, quoted.items), *_without_price(event, quoted)],
        sum_usd=_usd(quoted.cost),
    )


def _item(item: LineItem) -> Item:
    if item.kind == REQUEST:
        rates = {"usd_per_request": _usd(item.rate)}
    else:
        rates = {"usd_per_million_tokens": _usd(item.rate * TOKENS_PER_MILLION)}
    return Item(kind=item.kind, quantity=item.quantity, amount_usd=format_usd(item.amount), **rates)


def _without_price(event: UsageEvent, quoted: Quote) -> Iterator[Item]:
    for kind, quantity in quantities(event.usage):
        if kind in quoted.unpriced:
            yield Item(kind=kind, quantity=quantity, amount_usd=None)


def _version(event: UsageEvent, price: Price, catalog: str | None) -> Version:
    same = {
        name: getattr(price, name)
        for name in Version.__struct_fields__
        if name in Price.__struct_fields__ and name != "hours"
    }
    found_by = next(_found_by(event, price, catalog), None)
    return Version(**same, hours=_hours(price.hours), found_by=found_by)


def _hours(hours: Hours | None) -> str | None:
    if hours is None:
        return None
    start, end = (divmod(minute, 60) for minute in (hours.start_minute, hours.end_minute))
    return f"{start[0]:02}:{start[1]:02}-{end[0]:02}:{end[1]:02}"


def _found_by(event: UsageEvent, price: Price, catalog: str | None) -> Iterator[str]:
    place = Place(price.catalog, price.upstream, price.model)
    for model in dict.fromkeys((event.model, event.model_requested)):
        words = rule(place, model, event.upstream, catalog)
        if words is None:
            continue
        if model != event.model:
            words += "; by the model that was asked for, not the one that answered"
        if price.service_tier != tier_of(event.service_tier):
            words += f"; the tier {event.service_tier} has no price, so that the standard one stands in"
        yield words


def _unpriced(account: Account, known: Knowledge) -> Unpriced | None:
    event = account.event
    if account.cost is not None or event.usage_source is UsageSource.NONE:
        return None
    found = known.book.find(
        event.upstream, event.model_requested, event.model_served, event.service_tier, event.started_at
    )
    rerate = f"meter prices reprice --since {event.started_at:%Y-%m-%d} --apply"
    if found is not None:
        lacking = ", ".join(quote(found.price, event.usage).unpriced)
        if not lacking:
            return Unpriced("the book had no price for it when it came", f"it has one now: {rerate}")
        return Unpriced(
            f"the price version {found.price.id} of {found.price.model} has no price for {lacking}",
            f"add a version that has one with 'meter prices set', then: {rerate}",
        )
    names = " nor ".join(dict.fromkeys((event.model, event.model_requested)))
    return Unpriced(
        f"the book has no price for {names} at {event.started_at:%Y-%m-%dT%H:%M:%S}Z",
        f"set one: meter prices set {shlex.quote(event.model)} --prompt USD --completion USD "
        f"--from {event.started_at:%Y-%m-%d}\nand then: {rerate}",
    )


def _usd(amount: int | None) -> str | None:
    return None if amount is None else format_usd(Picodollars(amount))
