"""Retention: whole months of events leave the ledger, and the sums of them stay.

The horizon is where the ledger begins: the first instant of a month in UTC. What counts before it is gone or
is about to go, and what is posted for a time before it counts when it is posted, as for a closed month. It
never moves back.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from meter.core.errors import InvalidRequest

MONTHS_MAX = 1200


class BeforeHorizon(InvalidRequest):
    """What was asked for needs events that have left the ledger."""

    def __init__(self, what: str, horizon: datetime) -> None:
        super().__init__(
            f"{what} the events themselves, and the ledger begins at {label(horizon)}: older ones have left "
            f"it by 'meter retention'. Ask from {horizon:%Y-%m-%d} (UTC) on.",
            param="since",
        )


class Month(NamedTuple):
    """A month of events that leave."""

    label: str
    events: int


class Plan(NamedTuple):
    """What retention would do, or did."""

    horizon: datetime | None
    """Where the ledger begins now; `None`: nothing has left it yet."""
    wanted: datetime | None
    """Where it is to begin; `None`: everything is kept."""
    months: tuple[Month, ...]
    """What leaves."""


def wanted_horizon(now: datetime, months: int) -> datetime:
    """Return where the ledger begins that keeps so many months beside the one that runs."""
    this = now.astimezone(UTC)
    count = max(this.year * 12 + this.month - 1 - months, 12)
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


def check_since(what: str, since: datetime, horizon: datetime | None) -> None:
    """Raise `BeforeHorizon` where something would read events from before the horizon."""
    if horizon is not None and since < horizon:
        raise BeforeHorizon(what, horizon)


def label(horizon: datetime) -> str:
    """Write a horizon down."""
    return horizon.strftime("%Y-%m-%dT%H:%MZ")


def as_json(plan: Plan, *, applied: bool) -> dict[str, Any]:
    """Return a plan as the JSON document that the command line gives."""
    return {
        "applied": applied,
        "horizon": None if plan.horizon is None else label(plan.horizon),
        "wanted": None if plan.wanted is None else label(plan.wanted),
        "months": [month._asdict() for month in plan.months],
        "events": sum(month.events for month in plan.months),
    }
