"""What rating again changes: which events it is about, and the differences by day, team and model."""

import fnmatch
from collections.abc import Collection
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

import msgspec

from meter.core.corrections import Account, Verdict
from meter.core.events import UsageEvent
from meter.core.money import Picodollars, format_usd
from meter.core.months import month_of
from meter.core.period import parse_instant, zone


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are rated again."""

    since: datetime
    until: datetime
    tz: tzinfo
    """Whose days the differences are told by."""
    model: str | None = None
    """A pattern with `*` and `?`; the model that answered or the one that was asked for matches it."""

    def holds(self, event: UsageEvent) -> bool:
        """Say whether an event's model is meant."""
        return self.model is None or any(
            fnmatch.fnmatchcase(name, self.model) for name in (event.model, event.model_requested)
        )


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A selection as somebody writes it."""

    since: str
    until: str | None = None
    tz: str = "UTC"
    model: str | None = None


def selection(asked: Asked, now: datetime) -> Selection:
    """Read a selection, which ends now unless it says when; raises `ValueError`."""
    tz = zone(asked.tz)
    since = parse_instant(asked.since, tz)
    until = now if asked.until is None else parse_instant(asked.until, tz)
    if since >= until:
        raise ValueError("there is nothing between them: 'since' must be earlier than 'until'")
    return Selection(since=since, until=until, tz=tz, model=asked.model)


class Place(NamedTuple):
    """What a difference is told by."""

    day: str
    team_id: str
    model: str


class Difference(msgspec.Struct):
    """What changes for some events. Costs are picodollars."""

    events: int = 0
    unpriced_before: int = 0
    old_cost: int = 0
    """Of those that had a price."""
    new_cost: int = 0

    def add(self, old_cost: int | None, change: int) -> None:
        """Count the change of one event."""
        self.events += 1
        self.unpriced_before += old_cost is None
        self.old_cost += old_cost or 0
        self.new_cost += (old_cost or 0) + change


class Repricing:
    """The differences that rating again makes, or has made."""

    def __init__(self, asked: Selection, closed: Collection[datetime]) -> None:
        """Begin with nothing; `closed` are the first instants of the closed months."""
        self.selection = asked
        self.differences: dict[Place, Difference] = {}
        self.total = Difference()
        self.of_closed_months = Difference()
        self.looked_at = 0
        self.still_unpriced = 0
        self.repeated = 0
        self._closed = closed

    def look(self, account: Account, verdict: Verdict) -> None:
        """Count an event that was looked at."""
        self.looked_at += 1
        self.still_unpriced += account.cost is None and verdict.correction is None
        self.repeated += verdict.repeats

    def add(self, account: Account, correction: UsageEvent) -> None:
        """Count a correction."""
        event = account.event
        day = event.started_at.astimezone(self.selection.tz).date().isoformat()
        line = self.differences.setdefault(Place(day, event.team_id, event.model), Difference())
        lines = [line, self.total]
        if month_of(event) in self._closed:
            lines.append(self.of_closed_months)
        for each in lines:
            each.add(account.cost, correction.cost or 0)

    def rows(self) -> list[tuple[Place, Difference]]:
        """Return the differences by day, team and model."""
        return sorted(self.differences.items())


def columns(difference: Difference) -> dict[str, Any]:
    """Return a difference as it is shown; a cost that was unknown for all of the events is `None`."""
    known = difference.events > difference.unpriced_before or not difference.events
    return {
        "events": difference.events,
        "unpriced_before": difference.unpriced_before,
        "old_cost_usd": _usd(difference.old_cost) if known else None,
        "new_cost_usd": _usd(difference.new_cost),
        "difference_usd": _usd(difference.new_cost - difference.old_cost),
    }


def _usd(amount: int) -> str:
    return format_usd(Picodollars(amount))
