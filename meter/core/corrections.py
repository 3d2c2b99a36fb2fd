"""Corrections: what an event costs is never edited, and every change of it is an entry of its own.

An event's cost now is its own and that of its corrections. A correction has no requests and no tokens; its
id is made of the event's and of the price version's, so that correcting twice by the same version is
impossible, whoever does it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid5

from meter.core.access import ACTOR_LENGTH_MAX
from meter.core.events import UsageEvent, UsageSource
from meter.core.prices import COST_MAX, RESERVATION_CHARGED, TIER_ASSUMED, Found, PriceBook, quote

REASON_LENGTH_MAX = 256


class Posted(NamedTuple):
    """An entry of the ledger, and when it was posted."""

    event: UsageEvent
    posted_at: datetime


class Account(NamedTuple):
    """An event and all of its corrections, in the order in which they were posted."""

    original: Posted
    corrections: tuple[Posted, ...] = ()

    @property
    def event(self) -> UsageEvent:
        """The event as it was recorded."""
        return self.original.event

    @property
    def cost(self) -> int | None:
        """What it costs now; `None` is unpriced."""
        known = [entry.event.cost for entry in self._entries if entry.event.cost is not None]
        return sum(known) if known else None

    @property
    def price_id(self) -> int | None:
        """The version of the price that it was last rated by."""
        return self._entries[-1].event.price_id

    @property
    def posted_at(self) -> datetime:
        """When the last of its entries was posted."""
        return self._entries[-1].posted_at

    @property
    def _entries(self) -> tuple[Posted, ...]:
        return (self.original, *self.corrections)


class Cause(NamedTuple):
    """Who corrects, and why."""

    actor: str
    reason: str


class Verdict(NamedTuple):
    """Which correction an account needs, if any."""

    correction: UsageEvent | None = None
    repeats: bool = False
    """It needs one by a version by which it was corrected before, and since then by another one again."""


Decide = Callable[[Account], Verdict]


def given_cause(actor: str, reason: str) -> Cause:
    """Check who corrects and why; raises `ValueError`."""
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        raise ValueError(f"a reason has 1 to {REASON_LENGTH_MAX} printable characters")
    return Cause(actor[:ACTOR_LENGTH_MAX], reason)


def judge(account: Account, book: PriceBook, cause: Cause) -> Verdict:
    """Find the correction that an account needs to cost what the book says.

    What has a cost never loses it: where the book knows no price any more, the cost stays. A strict budget's
    reservation that was charged, because nobody knows what was used, stays as well.
    """
    event = account.event
    if event.usage_source is UsageSource.NONE or RESERVATION_CHARGED in event.anomalies:
        # Nothing was used, or nobody knows how much, and a budget has charged what was reserved.
        return Verdict()
    found = book.find(
        event.upstream, event.model_requested, event.model_served, event.service_tier, event.started_at
    )
    if found is None or found.price.id == account.price_id:
        return Verdict()
    cost = quote(found.price, event.usage).cost
    if cost is None or cost > COST_MAX or cost == account.cost:
        return Verdict()
    made = _correction(account, found, cost, cause)
    if any(entry.event.event_id == made.event_id for entry in account.corrections):
        return Verdict(repeats=True)
    return Verdict(made)


def correction_id(event_id: str, price_id: int) -> str:
    """Make the id of the one correction that an event can have by a price version."""
    return str(uuid5(UUID(event_id), str(price_id)))


def posting_time(accounts: Iterable[Account], now: datetime) -> datetime:
    """Return when corrections of accounts are posted: after all of their entries, whatever the clock says."""
    return max([now, *(account.posted_at + timedelta(microseconds=1) for account in accounts)])


def _correction(account: Account, found: Found, new_cost: int, cause: Cause) -> UsageEvent:
    event, cost = account.event, account.cost
    was_unpriced = cost is None
    compared = event.upstream_cost if was_unpriced or event.upstream_cost is None else 0
    return UsageEvent(
        event_id=correction_id(event.event_id, found.price.id),
        started_at=event.started_at,
        team_id=event.team_id,
        key_id=event.key_id,
        route=event.route,
        upstream=event.upstream,
        model_requested=event.model_requested,
        model_served=event.model_served,
        service_tier=event.service_tier,
        stream=event.stream,
        outcome=event.outcome,
        usage_source=event.usage_source,
        anomalies=(TIER_ASSUMED,) if found.tier_assumed else (),
        cost=new_cost - (cost or 0),
        price_id=found.price.id,
        upstream_cost=compared,
        upstream_cost_source=event.upstream_cost_source,
        end_user=event.end_user,
        tags=event.tags,
        corrects_id=event.event_id,
        priced_tokens=event.total_tokens if was_unpriced else None,
        actor=cause.actor,
        reason=cause.reason,
    )
