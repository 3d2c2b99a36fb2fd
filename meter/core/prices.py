"""Prices: dated versions of what a token costs, and what an event comes to.

What tokens cost by their kind is in `meter.core.tariffs`. Any kind that was used and has no price leaves the
whole event without one: unknown is not free.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from meter.core.events import UsageEvent, UsageSource
from meter.core.model_names import Place, places
from meter.core.money import Picodollars
from meter.core.tariffs import KINDS, Counts, Tariff, quantities, tariff_for

REQUEST = "request"
# What providers call the tier that a request gets without asking for one.
STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "on_demand"})
TIER_ASSUMED = "tier_assumed_standard"
# 4.6 million USD for one request still fit a column; beyond it, nobody believes the usage.
COST_MAX = 2**62
COST_IMPLAUSIBLE = "implausible_cost"
# The provider charges more than a strict budget could expect.
OVERSHOOT = "overshoot"
# What it used is unknown, so that a strict budget charges what it had reserved. No price changes that later.
RESERVATION_CHARGED = "reservation_charged"
# A book remembers where it found the prices of this many names, most of which clients have made up.
NAMES_REMEMBERED_MAX = 10_000
MINUTES_OF_DAY = 24 * 60
# What holds from here on holds for everything that was ever metered.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Picodollars a token by kind; `None` is no price, 0 is free."""

    prompt: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    input_audio: int | None = None
    completion: int | None = None
    output_audio: int | None = None
    request: int = 0
    """Picodollars a request, on top of its tokens."""

    def of(self, kind: str) -> int | None:
        """Return the rate of a kind, with the one default there is."""
        rate: int | None = getattr(self, kind)
        return self.prompt if rate is None and kind == "cached" else rate


class LongContext(msgspec.Struct, frozen=True, kw_only=True):
    """Other rates for the whole request where its prompt is longer than this; not only for what is above."""

    above_tokens: int
    rates: Rates


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """A part of every day in UTC, by minutes since midnight: `[start, end)`, also across midnight."""

    start_minute: int
    end_minute: int

    def hold(self, when: datetime) -> bool:
        """Say whether an instant, in UTC, is within."""
        minute = when.hour * 60 + when.minute
        if self.start_minute <= self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the price of one model in one tier; never changed once it is in the book."""

    id: int
    catalog: str
    """Whose list it is from; empty is the operator's own."""
    upstream: str = ""
    """The one upstream that it holds for; empty is any."""
    model: str
    service_tier: str = ""
    """Empty is the standard tier."""
    effective_from: datetime
    hours: Hours | None = None
    rates: Rates
    long_context: tuple[LongContext, ...] = ()
    """In ascending order."""
    max_output_tokens: int | None = None
    """The most tokens that one choice of an answer can have."""
    source: str
    """Where it is from: `set`, a file's name, or a package and its version."""
    created_at: datetime
    created_by: str = ""
    note: str = ""

    def rates_for(self, prompt_tokens: int) -> Rates:
        """Return the rates of a request whose prompt has so many tokens."""
        rates = self.rates
        for long in self.long_context:
            if prompt_tokens > long.above_tokens:
                rates = long.rates
        return rates

    def holds(self, when: datetime) -> bool:
        """Say whether this version counts at an instant in UTC, unless a later one does."""
        return self.effective_from <= when and (self.hours is None or self.hours.hold(when))


class LineItem(NamedTuple):
    """One summand of a cost."""

    kind: str
    quantity: int
    """Tokens, or 1 for a request."""
    rate: int
    """Picodollars each."""

    @property
    def amount(self) -> Picodollars:
        """What it comes to."""
        return Picodollars(self.quantity * self.rate)


class Quote(NamedTuple):
    """What a usage comes to at a price."""

    items: tuple[LineItem, ...]
    unpriced: tuple[str, ...]
    """The kinds that were used and have no rate."""

    @property
    def cost(self) -> Picodollars | None:
        """The sum, or `None` where a part of it is unknown."""
        return None if self.unpriced else Picodollars(sum(item.amount for item in self.items))


class Found(NamedTuple):
    """A price, and how it was found."""

    price: Price
    place: Place
    tier_assumed: bool
    """Whether the tier has no price, so that the standard one stands in for it."""


def _tariffs(price: Price) -> tuple[Tariff, ...]:
    """Return a price's rates, those for the longest prompts first."""
    longer = [(long.above_tokens, long.rates) for long in price.long_context]
    return tuple(
        Tariff(above_tokens, tuple(map(rates.of, KINDS)), rates.request)
        for above_tokens, rates in reversed([(-1, price.rates), *longer])
    )


def quote(price: Price, usage: Counts) -> Quote:
    """Work out what a usage costs, summand by summand."""
    tariff = tariff_for(_tariffs(price), usage.prompt_tokens)
    items: list[LineItem] = []
    unpriced: list[str] = []
    for (kind, tokens), rate in zip(quantities(usage), tariff.rates, strict=True):
        if not tokens:
            continue
        if rate is None:
            unpriced.append(kind)
        else:
            items.append(LineItem(kind, tokens, rate))
    if tariff.request:
        items.append(LineItem(REQUEST, 1, tariff.request))
    return Quote(tuple(items), tuple(unpriced))


class _Tiers(NamedTuple):
    prices: tuple[Price, ...]
    since: datetime
    until: datetime


class Held(NamedTuple):
    """What a book found for a name, and from when until when it would find the same."""

    since: datetime
    until: datetime
    found: Found | None
    tariffs: tuple[Tariff, ...] = ()

    def cost(self, usage: Counts) -> Picodollars | None:
        """Work out what a usage costs at the price that was found."""
        return tariff_for(self.tariffs, usage.prompt_tokens).cost(usage)


class PriceBook:
    """All versions of all prices, as they were at some time."""

    def __init__(self, prices: Iterable[Price], catalogs: Mapping[str, str] | None = None) -> None:
        """Take the versions, and the price lists of upstreams that are a provider of their own."""
        self._catalogs = dict(catalogs or {})
        self._versions: dict[tuple[Place, str], list[Price]] = {}
        self._tiers: dict[Place, set[str]] = {}
        for price in sorted(prices, key=lambda each: (each.effective_from, each.id), reverse=True):
            place = Place(price.catalog, price.upstream, price.model)
            self._versions.setdefault((place, price.service_tier), []).append(price)
            self._tiers.setdefault(place, set()).add(price.service_tier)
        self._remembered: dict[tuple[str, str, str | None, str | None], Held] = {}
        self._tiers_remembered: dict[tuple[str, str], _Tiers] = {}

    def find(
        self, upstream: str, requested: str, served: str | None, service_tier: str | None, when: datetime
    ) -> Found | None:
        """Find the price that counts at an instant in UTC: of the model that answered, else of the other."""
        return self.look_up(upstream, requested, served, service_tier, when).found

    def look_up(
        self, upstream: str, requested: str, served: str | None, service_tier: str | None, when: datetime
    ) -> Held:
        """Find the same, ready to work out costs, and remember it."""
        name = (upstream, requested, served, service_tier)
        held = self._remembered.get(name)
        if held is None or not held.since <= when < held.until:
            if len(self._remembered) >= NAMES_REMEMBERED_MAX:
                self._remembered.clear()
            held = self._remembered[name] = self._find(*name, when)
        return held

    def _find(
        self, upstream: str, requested: str, served: str | None, service_tier: str | None, when: datetime
    ) -> Held:
        tier = tier_of(service_tier)
        where = tuple(self._search(upstream, requested, served, tier))
        span = _span([price for each in where for price in self._versions[each]], when)
        for place, found_tier in where:
            for price in self._versions[place, found_tier]:
                if price.holds(when):
                    return Held(*span, Found(price, place, found_tier != tier), _tariffs(price))
        return Held(*span, None)

    def tiers(self, upstream: str, model: str, when: datetime) -> tuple[Price, ...]:
        """Return the prices of a requested model in every tier that has one, the standard one first."""
        remembered = self._tiers_remembered.get((upstream, model))
        if remembered is None or not remembered.since <= when < remembered.until:
            if len(self._tiers_remembered) >= NAMES_REMEMBERED_MAX:
                self._tiers_remembered.clear()
            remembered = self._find_tiers(upstream, model, when)
            self._tiers_remembered[upstream, model] = remembered
        return remembered.prices

    def _find_tiers(self, upstream: str, model: str, when: datetime) -> "_Tiers":
        """Find the prices of every tier, and from when until when they hold."""
        places = {place for place, _ in self._search(upstream, model, None, "")}
        versions = [
            price for place in places for tier in self._tiers[place] for price in self._versions[place, tier]
        ]
        return _Tiers(self._tiers_at(upstream, model, when), *_span(versions, when))

    def _tiers_at(self, upstream: str, model: str, when: datetime) -> tuple[Price, ...]:
        found = self.find(upstream, model, None, None, when)
        if found is None:
            return ()
        others = (
            next((price for price in self._versions[found.place, tier] if price.holds(when)), None)
            for tier in self._tiers.get(found.place, ())
            if tier != found.price.service_tier
        )
        return (found.price, *(price for price in others if price is not None))

    def knows(self, upstream: str, model: str, when: datetime) -> bool:
        """Say whether a requested model has a price."""
        return self.find(upstream, model, None, None, when) is not None

    def ever_priced(self, upstream: str, model: str) -> bool:
        """Say whether there is any version for a model, of whatever time."""
        return any(True for _ in self._search(upstream, model, None, ""))

    def history(self, price: Price) -> tuple[Price, ...]:
        """Return all versions of what a price is about, the last one first."""
        place = Place(price.catalog, price.upstream, price.model)
        return tuple(self._versions[place, price.service_tier])

    @property
    def names_remembered(self) -> int:
        """For how many names it remembers what it found."""
        return len(self._remembered)

    def _search(
        self, upstream: str, requested: str, served: str | None, tier: str
    ) -> Iterable[tuple[Place, str]]:
        tiers = dict.fromkeys((tier, ""))
        for model in dict.fromkeys((served or requested, requested)):
            for place in places(model, upstream, self._catalogs.get(upstream)):
                yield from ((place, each) for each in tiers if (place, each) in self._versions)


def rate(event: UsageEvent, book: PriceBook) -> UsageEvent:
    """Put a cost on an event, or leave it unpriced where the book does not know one.

    The price is that of the model and the tier that were served, at the time at which the attempt started.
    """
    if event.usage_source is UsageSource.NONE:
        # Nothing was used, so there is nothing to pay for.
        return event
    held = book.look_up(
        event.upstream, event.model_requested, event.model_served, event.service_tier, event.started_at
    )
    found = held.found
    if found is None:
        return _with_reservation(event)
    odd = (*event.anomalies, TIER_ASSUMED) if found.tier_assumed else event.anomalies
    cost = held.cost(event)
    if cost is not None and cost > COST_MAX:
        cost, odd = None, (*odd, COST_IMPLAUSIBLE)
    rated = msgspec.structs.replace(event, cost=cost, price_id=found.price.id, anomalies=odd)
    return rated if event.cost_bound is None else _with_reservation(rated)


def _span(versions: Iterable[Price], when: datetime) -> tuple[datetime, datetime]:
    """Say from when until when the same versions count as at an instant: to the next, or the next minute."""
    since, until = BEGINNING, END
    for price in versions:
        if price.effective_from > when:
            until = min(until, price.effective_from)
        else:
            since = max(since, price.effective_from)
        if price.hours is not None:
            minute = when.replace(second=0, microsecond=0)
            since, until = max(since, minute), min(until, minute + timedelta(minutes=1))
    return since, until


def _with_reservation(event: UsageEvent) -> UsageEvent:
    """Compare with what a strict budget has reserved, and charge that where the cost is not known."""
    bound = event.cost_bound
    if bound is None:
        return event
    if event.cost is not None and event.usage_source is UsageSource.REPORTED:
        return _flagged(event, OVERSHOOT) if event.cost > bound else event
    charged = max(bound, event.cost or 0)
    return _flagged(msgspec.structs.replace(event, cost=charged), RESERVATION_CHARGED)


def _flagged(event: UsageEvent, anomaly: str) -> UsageEvent:
    return msgspec.structs.replace(event, anomalies=(*event.anomalies, anomaly))


def tier_of(service_tier: str | None) -> str:
    """Return a tier as the book names it: empty is the standard one."""
    return "" if service_tier is None or service_tier in STANDARD_TIERS else service_tier
