"""A provider's bill against the ledger: what differs by day and model, and why.

Amounts agree when they are equal to the last digit that the bill writes: a bill that is rounded to cents
agrees with what rounds to the same cents. Only what does not agree is a difference.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from meter.core.events import UsageEvent, UsageSource
from meter.core.matching import Names, match
from meter.core.money import DIGITS
from meter.core.prices import PriceBook, quote, tier_of
from meter.core.rollup import Sums

COUNTED = (
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "requests",
)
# Nobody bills fractions of a cent by rounding to less: `3` is 3.00 written short.
DECIMALS_MIN = 2
# With more decimals than a picodollar has, a program has written binary floats, which are as exact as this.
FLOAT_PARTS = 10**12


class Difference(StrEnum):
    """Why a line of the bill and the ledger differ."""

    OK = "ok"
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    PRICE = "price"
    CACHED = "cached"
    TIER = "tier"
    ESTIMATED = "estimated"
    TOKENS = "tokens"


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bill; what it does not tell is `None`."""

    day: str
    model: str
    prompt_tokens: int
    """Cached tokens and tokens written to a cache are part of them, as everywhere in meter."""
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int
    """Reasoning tokens are part of them."""
    reasoning_tokens: int | None = None
    requests: int | None = None
    cost: int
    """Picodollars."""
    service_tier: str | None = None


class Bill(msgspec.Struct, frozen=True):
    """A provider's invoice or usage export."""

    lines: tuple[Billed, ...]
    decimals: int
    """The most decimals with which any of its costs is written."""

    @property
    def names_tiers(self) -> bool:
        """Say whether it tells the service tier."""
        return any(line.service_tier is not None for line in self.lines)


class Recorded(msgspec.Struct, frozen=True):
    """What the ledger has of a day, a model, and where it was asked for a tier."""

    day: str
    model: str
    sums: Sums
    service_tier: str | None = None


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one side has of a day and a model."""

    prompt_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int = 0
    reasoning_tokens: int | None = None
    requests: int | None = None
    cost: int = 0
    tiers: frozenset[tuple[str, int]] | None = None
    """The tokens by tier, where they are known."""
    lines: int = 1
    unreported_tokens: int = 0
    """Ours: those of events whose usage the provider did not report."""
    unpriced_requests: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class Case(msgspec.Struct, frozen=True):
    """A day and a model, as both sides have it; a side that has nothing is `None`."""

    day: str
    names: Names
    theirs: Side | None
    ours: Side | None
    rounding: Fraction
    """How far amounts of this bill may be from exact ones, in picodollars."""

    def agrees(self, cost: int) -> bool:
        """Say whether an amount of ours is what they bill, as far as they write it."""
        return self.theirs is not None and abs(self.theirs.cost - cost) <= self.rounding

    @property
    def difference(self) -> int:
        """What they bill more than we have, in picodollars."""
        return (self.theirs.cost if self.theirs else 0) - (self.ours.cost if self.ours else 0)

    def more(self, name: str) -> int | None:
        """Return how many more of a count they have than we do; `None` where a side does not tell."""
        sides = [0 if side is None else getattr(side, name) for side in (self.theirs, self.ours)]
        return None if None in sides else sides[0] - sides[1]


class TierCosts(NamedTuple):
    """What the events of a case would cost in each tier that has prices for all of them, by today's book."""

    costs: Mapping[str, int]
    served: frozenset[str]
    """The tiers in which they were served."""


class Finding(msgspec.Struct, frozen=True):
    """A case, and why its sides differ."""

    case: Case
    difference: Difference
    tiers: tuple[str, ...] = ()
    """Of a `tier` or a `price`: the tiers at whose price of today it comes to what they bill."""


class Total(NamedTuple):
    """The whole bill, in picodollars."""

    theirs: int
    ours: int
    differing: int
    """The sum of the differences without their signs, of what is not `ok`."""

    def within(self, tolerance: Fraction) -> bool:
        """Say whether what differs is at most this part of what they bill."""
        return self.differing <= tolerance * abs(self.theirs)


def pair(bill: Bill, recorded: Iterable[Recorded]) -> list[Case]:
    """Bring both sides together by day and model, in order; what neither used nor billed is left out."""
    theirs, ours = _by_day_and_model(bill.lines), _by_day_and_model(recorded)
    groups = match((model for _, model in theirs), (model for _, model in ours))
    days = sorted({day for day, _ in [*theirs, *ours]})
    cases = [
        _case(day, names, _at(theirs, day, names.theirs), _at(ours, day, names.ours), bill.decimals)
        for day in days
        for names in groups
    ]
    return [case for case in cases if _worth_a_line(case.theirs) or _worth_a_line(case.ours)]


def needs_tier_costs(case: Case) -> bool:
    """Say whether only prices of other tiers can tell why a case differs."""
    return judge(case, None).difference is Difference.PRICE


def judge(case: Case, tier_costs: TierCosts | None) -> Finding:
    """Say why the sides of a case differ."""
    theirs, ours = case.theirs, case.ours
    if theirs is None or ours is None:
        missing = Difference.MISSING_THERE if theirs is None else Difference.MISSING_HERE
        return Finding(case, missing)
    if case.more("prompt_tokens") or case.more("completion_tokens"):
        off = abs(case.more("prompt_tokens") or 0) + abs(case.more("completion_tokens") or 0)
        estimated = off <= ours.unreported_tokens
        return Finding(case, Difference.ESTIMATED if estimated else Difference.TOKENS)
    if case.more("cached_tokens") or case.more("cache_write_tokens"):
        return Finding(case, Difference.CACHED)
    if theirs.tiers is not None and ours.tiers is not None and theirs.tiers != ours.tiers:
        return Finding(case, Difference.TIER)
    if case.agrees(ours.cost) and not ours.unpriced_requests:
        return Finding(case, Difference.TOKENS if case.more("reasoning_tokens") else Difference.OK)
    return _by_price(case, tier_costs)


def total(findings: Iterable[Finding]) -> Total:
    """Add a comparison up."""
    theirs = ours = differing = 0
    for finding in findings:
        case = finding.case
        theirs += case.theirs.cost if case.theirs else 0
        ours += case.ours.cost if case.ours else 0
        differing += 0 if finding.difference is Difference.OK else abs(case.difference)
    return Total(theirs, ours, differing)


def costs_by_tier(events: Iterable[UsageEvent], book: PriceBook, tiers: Iterable[str]) -> TierCosts:
    """Work out what events would cost in each of the tiers; one that lacks a price for any is left out."""
    costs = dict.fromkeys(tiers, 0)
    served: set[str] = set()
    for event in events:
        if event.usage_source is UsageSource.NONE:
            continue
        served.add(tier_of(event.service_tier))
        for tier in list(costs):
            cost = _cost_in(tier, event, book)
            if cost is None:
                del costs[tier]
            else:
                costs[tier] += cost
    return TierCosts(costs, frozenset(served))


def _cost_in(tier: str, event: UsageEvent, book: PriceBook) -> int | None:
    found = book.find(event.upstream, event.model_requested, event.model_served, tier, event.started_at)
    return None if found is None or found.tier_assumed else quote(found.price, event.usage).cost


def _by_price(case: Case, tier_costs: TierCosts | None) -> Finding:
    if tier_costs is None:
        return Finding(case, Difference.PRICE)
    agreeing = tuple(tier for tier, cost in tier_costs.costs.items() if case.agrees(cost))
    served = tuple(tier for tier in agreeing if tier_costs.served == {tier})
    if served or not agreeing:
        return Finding(case, Difference.PRICE, served)
    return Finding(case, Difference.TIER, agreeing)


_Lines = dict[tuple[str, str], list[Billed | Recorded]]


def _by_day_and_model(lines: Iterable[Billed | Recorded]) -> _Lines:
    found: _Lines = {}
    for line in lines:
        found.setdefault((line.day, line.model), []).append(line)
    return found


def _at(lines: _Lines, day: str, models: Iterable[str]) -> Side | None:
    found = [line for model in models for line in lines.get((day, model), [])]
    return _side(found) if found else None


def _side(lines: list[Billed | Recorded]) -> Side:
    billed = [line if isinstance(line, Billed) else _as_billed(line) for line in lines]
    sums = [line.sums for line in lines if isinstance(line, Recorded)]
    counts: dict[str, Any] = {name: _sum(getattr(line, name) for line in billed) for name in COUNTED}
    return Side(
        **counts,
        cost=sum(line.cost for line in billed),
        tiers=_tiers(billed),
        lines=len(lines),
        unreported_tokens=sum(each.estimated_tokens + each.invalid_tokens for each in sums),
        unpriced_requests=sum(each.unpriced_requests for each in sums),
    )


def _as_billed(line: Recorded) -> Billed:
    counts = {name: getattr(line.sums, name) for name in COUNTED}
    return Billed(
        day=line.day, model=line.model, cost=line.sums.cost, service_tier=line.service_tier, **counts
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    total_count = 0
    for count in counts:
        if count is None:
            return None
        total_count += count
    return total_count


def _tiers(lines: Iterable[Billed]) -> frozenset[tuple[str, int]] | None:
    tokens: dict[str, int] = {}
    for line in lines:
        if line.service_tier is None:
            return None
        tier = tier_of(line.service_tier)
        tokens[tier] = tokens.get(tier, 0) + line.prompt_tokens + line.completion_tokens
    return frozenset(entry for entry in tokens.items() if entry[1])


def _worth_a_line(side: Side | None) -> bool:
    return side is not None and bool(side.total_tokens or side.cost or side.unpriced_requests)


def _case(day: str, names: Names, theirs: Side | None, ours: Side | None, decimals: int) -> Case:
    return Case(day, names, theirs, ours, _rounding(theirs, decimals))


def _rounding(theirs: Side | None, decimals: int) -> Fraction:
    if theirs is None:
        return Fraction(0)
    if decimals > DIGITS:
        return Fraction(abs(theirs.cost), FLOAT_PARTS)
    half_a_digit = Fraction(10) ** (DIGITS - max(decimals, DECIMALS_MIN)) / 2
    # Half of a picodollar is nothing: all of ours are whole.
    return theirs.lines * half_a_digit if half_a_digit >= 1 else Fraction(0)


def parse_tolerance(text: str) -> Fraction:
    """Read a part of a whole, 0 to 1; raises `ValueError`."""
    try:
        part = Decimal(text)
    except ArithmeticError:
        part = Decimal(-1)
    if not part.is_finite() or not 0 <= part <= 1:
        raise ValueError(
            f"the tolerance is a part of their total, 0 to 1 (0.01 is one percent): not {text!r}"
        )
    return Fraction(part)


def in_order(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Put what differs most first within a day."""
    yield from sorted(findings, key=lambda each: (each.case.day, -abs(each.case.difference)))
