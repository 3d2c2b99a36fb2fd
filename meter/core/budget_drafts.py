"""A budget as somebody writes it down, on the command line or over the API, and how one is shown."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from meter.core.budgets import (
    PERIODS,
    THRESHOLDS,
    Budget,
    Enforcement,
    Measure,
    OwnerKind,
    Standing,
    check_pattern,
    check_thresholds,
    format_amount,
    parse_limit,
)
from meter.core.forecast import outlook
from meter.core.keys import Grant
from meter.core.period import zone


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants a budget to be; the owner is named by at most one of `team` and `key`."""

    limit: str
    """USD as a decimal string, or a whole number of tokens or requests."""
    period: str
    team: str | None = None
    key: str | None = None
    model: str = ""
    measure: str = Measure.COST
    tz: str = "UTC"
    enforcement: str = Enforcement.STANDARD
    thresholds: tuple[int, ...] = THRESHOLDS


def check(draft: Draft, *, budget_id: str, owner_id: str, owner: str) -> Budget:
    """Read a draft; raises `ValueError` naming the field that cannot be read and what it may be."""
    measure = _one_of(Measure, draft.measure, "measure")
    zone(draft.tz)
    if draft.period not in PERIODS:
        raise ValueError(f"period must be one of {', '.join(PERIODS)}, not {draft.period!r}")
    return Budget(
        id=budget_id,
        owner_kind=_kind(draft),
        owner_id=owner_id,
        owner=owner,
        model=check_pattern(draft.model),
        measure=measure,
        period=draft.period,
        tz=draft.tz,
        limit=parse_limit(draft.limit, measure),
        enforcement=_one_of(Enforcement, draft.enforcement, "enforcement"),
        thresholds=check_thresholds(draft.thresholds),
    )


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and how it stands now. Amounts are USD as decimal strings, or whole numbers as strings."""

    id: str
    owner_kind: str
    owner: str
    """The name of the team or the key; empty for the organisation."""
    model: str
    """A pattern; empty is any model."""
    measure: str
    period: str
    tz: str
    enforcement: str
    thresholds: tuple[int, ...]
    limit: str
    spent: str
    reserved: str
    available: str
    window_start: datetime
    """In the budget's time zone, like the end."""
    window_end: datetime | None
    """`null` is never."""
    projected: str | None
    """What will be spent at the window's end, at the rate of so far; `null`: too early to tell, or no end."""
    reached_at: datetime | None
    """When the limit is reached at that rate; `null`: not in this window."""


def shown(standing: Standing, now: datetime) -> Shown:
    """Show a budget with its numbers, and what comes of them."""
    budget = standing.budget
    tz = zone(budget.tz)
    ahead = outlook(standing.spent, budget.limit, standing.start, standing.end, now)
    reached_at = None if ahead is None else ahead.reached_at
    amounts = {
        "limit": budget.limit,
        "spent": standing.spent,
        "reserved": standing.reserved,
        "available": standing.available,
    }
    written = {name: format_amount(amount, budget.measure) for name, amount in amounts.items()}
    return Shown(
        id=budget.id,
        owner_kind=budget.owner_kind,
        owner=budget.owner,
        model=budget.model,
        measure=budget.measure,
        period=budget.period,
        tz=budget.tz,
        enforcement=budget.enforcement,
        thresholds=budget.thresholds,
        window_start=standing.start.astimezone(tz),
        window_end=None if standing.end is None else standing.end.astimezone(tz),
        projected=None if ahead is None else format_amount(ahead.projected, budget.measure),
        reached_at=None if reached_at is None else reached_at.astimezone(tz),
        **written,
    )


def applying(standings: Iterable[Standing], grant: Grant) -> list[Standing]:
    """Return those that a key's requests may fall under, for some model or other."""
    owners: Mapping[OwnerKind, str] = {
        OwnerKind.ORG: "",
        OwnerKind.TEAM: grant.team_id,
        OwnerKind.KEY: grant.owner_id,
    }
    return [each for each in standings if owners[each.budget.owner_kind] == each.budget.owner_id]


def _kind(draft: Draft) -> OwnerKind:
    if draft.team is not None:
        return OwnerKind.TEAM
    return OwnerKind.ORG if draft.key is None else OwnerKind.KEY


def _one_of(kinds: Any, value: str, field: str) -> Any:
    try:
        return kinds(value)
    except ValueError:
        raise ValueError(f"{field} must be one of {', '.join(kinds)}, not {value!r}") from None
