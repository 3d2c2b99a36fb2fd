"""Budgets: who may use how much in which period, and how that stands.

Their windows are told by when and for whom a request started, so that what is spent in one is a sum of the
ledger, and nothing else.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

import msgspec

from meter.core.events import UsageEvent
from meter.core.money import Picodollars, format_usd, parse_usd
from meter.core.period import BUCKET, Unit, bucket, period_of, zone

TOTAL = "total"
PERIODS = ("hour", "day", "week", "month", TOTAL)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
THRESHOLDS = (50, 80, 100)
PATTERN_LENGTH_MAX = 256
# Beyond what any column holds once it is added up.
LIMIT_MAX = 2**62


class Measure(StrEnum):
    """What a budget counts."""

    COST = "cost"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Enforcement(StrEnum):
    """What a budget does to a request that does not fit."""

    STRICT = "strict"
    """Refuses it, and reserves the most that a request can use before it is admitted."""
    STANDARD = "standard"
    """Refuses it, and reserves what a request will likely use."""
    WARN = "warn"
    """Admits it, and tells."""


class OwnerKind(StrEnum):
    """Whose budget it is."""

    ORG = "org"
    TEAM = "team"
    KEY = "key"


class Amounts(NamedTuple):
    """How much of each measure; the cost in picodollars."""

    cost: int
    tokens: int
    requests: int

    def of(self, measure: Measure) -> int:
        """Return the amount of one measure."""
        if measure is Measure.COST:
            return self.cost
        return self.tokens if measure is Measure.TOKENS else self.requests


def place_of(measure: Measure) -> int:
    """Return where a measure stands among `Amounts`."""
    return Amounts._fields.index(measure)


class Span(NamedTuple):
    """When a window begins and ends; one without an end lasts for ever."""

    start: datetime
    end: datetime | None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """One budget. There is one for each owner, measure, period and model pattern."""

    id: str
    owner_kind: OwnerKind
    owner_id: str = ""
    """The id of the team or the key; empty for the organisation."""
    owner: str = ""
    """Its name, as it is shown."""
    successors: tuple[str, ...] = ()
    """The keys that took over from the owner, one from the other; what they use counts here too."""
    model: str = ""
    """A pattern for requested models, `*` and `?` as in a shell; empty is any."""
    measure: Measure
    period: str
    tz: str = "UTC"
    limit: int
    """Picodollars, tokens or requests."""
    enforcement: Enforcement
    thresholds: tuple[int, ...] = THRESHOLDS
    """At which percentages of the limit somebody is told."""

    def applies(self, team_id: str, key_id: str, model: str) -> bool:
        """Say whether a request counts here."""
        owners = {OwnerKind.ORG: "", OwnerKind.TEAM: team_id, OwnerKind.KEY: key_id}
        owner = owners[self.owner_kind]
        owned = owner == self.owner_id or (self.owner_kind is OwnerKind.KEY and owner in self.successors)
        return owned and (not self.model or fnmatchcase(model, self.model))

    def span(self, at: datetime) -> Span:
        """Return the window that holds an instant."""
        if self.period == TOTAL:
            return Span(BEGINNING, None)
        found = period_of(at, cast("Unit", self.period), zone(self.tz))
        return Span(found.start, found.end)

    @property
    def whose(self) -> str:
        """Say whose budget it is, and for what."""
        owner = (
            "the organisation" if self.owner_kind is OwnerKind.ORG else f"{self.owner_kind} {self.owner!r}"
        )
        model = f" for models {self.model!r}" if self.model else ""
        period = "in all" if self.period == TOTAL else f"a {self.period}"
        return f"{owner}{model} ({self.measure} {period})"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a budget stands in one of its windows."""

    budget: Budget
    start: datetime
    end: datetime | None
    spent: int
    reserved: int

    @property
    def available(self) -> int:
        """What can still be reserved; not below 0."""
        return max(0, self.budget.limit - self.spent - self.reserved)


def charged(event: UsageEvent) -> Amounts:
    """Return what an entry of the ledger counts for; a correction is no request, and may be negative."""
    tokens = event.prompt_tokens + event.completion_tokens
    return Amounts(event.cost or 0, tokens, 0 if event.corrects_id else 1)


def spent_by_window(budgets: Iterable[Budget], events: Iterable[UsageEvent]) -> dict[tuple[str, Span], int]:
    """Add up what events have spent, by budget and window; both are told by when and for whom it started."""
    found: dict[tuple[str, Span], int] = {}
    # Many requesters of a batch are under the same budgets, and calendars take their time.
    applying: dict[tuple[str, str, str], list[Budget]] = {}
    spans: dict[tuple[str, str, datetime], Span] = {}
    listed = list(budgets)
    for (requester, quarter), amounts in _charged_by(events).items() if listed else ():
        if requester not in applying:
            applying[requester] = [budget for budget in listed if budget.applies(*requester)]
        for budget in applying[requester]:
            calendar = (budget.period, budget.tz, quarter)
            if calendar not in spans:
                spans[calendar] = budget.span(quarter)
            window = (budget.id, spans[calendar])
            found[window] = found.get(window, 0) + amounts.of(budget.measure)
    return found


def _charged_by(events: Iterable[UsageEvent]) -> dict[tuple[tuple[str, str, str], datetime], Amounts]:
    """Add up what entries count for, by team, key and requested model, and by the quarter of their start."""
    found: dict[tuple[tuple[str, str, str], datetime], list[int]] = {}
    start = end = BEGINNING
    for event in events:
        if not start <= event.started_at < end:
            start = bucket(event.started_at)
            end = start + BUCKET
        group = ((event.team_id, event.key_id, event.model_requested), start)
        cost, tokens, requests = charged(event)
        sums = found.get(group)
        if sums is None:
            found[group] = [cost, tokens, requests]
        else:
            sums[0] += cost
            sums[1] += tokens
            sums[2] += requests
    return {group: Amounts(*sums) for group, sums in found.items()}


def parse_limit(text: str, measure: Measure) -> int:
    """Read a limit: USD as a decimal string, else a whole number; raises `ValueError`."""
    if measure is Measure.COST:
        limit = int(parse_usd(text))
    elif text.isascii() and text.isdecimal():
        limit = int(text)
    else:
        raise ValueError(f"a limit in {measure} is a whole number, not {text!r}")
    if not 0 <= limit <= LIMIT_MAX:
        most = format_amount(LIMIT_MAX, measure)
        raise ValueError(f"a limit is not negative, and not beyond {most}: {text!r}")
    return limit


def format_amount(amount: int, measure: Measure) -> str:
    """Write an amount exactly: USD as a decimal string, else a whole number."""
    return format_usd(Picodollars(amount)) if measure is Measure.COST else str(amount)


def check_pattern(pattern: str) -> str:
    """Return a model pattern, or raise `ValueError`; empty is any model."""
    if len(pattern) > PATTERN_LENGTH_MAX or not pattern.isprintable() or pattern != pattern.strip():
        raise ValueError(f"a model pattern has at most {PATTERN_LENGTH_MAX} printable characters")
    return "" if pattern == "*" else pattern


def check_thresholds(thresholds: Iterable[int]) -> tuple[int, ...]:
    """Return thresholds in ascending order, each once, or raise `ValueError`."""
    found = tuple(sorted(set(thresholds)))
    percent_max = 1000
    if any(not 0 < percent <= percent_max for percent in found):
        raise ValueError(f"thresholds are whole percentages from 1 to {percent_max}")
    return found
