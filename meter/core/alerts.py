"""Alerts: somebody is told when a budget's window has spent a part of its limit, once for each part.

They go to a webhook, signed so that the receiver can tell who sent it and when: `x-meter-signature` is
`t=<Unix time>,v1=<hex>`, and `<hex>` the HMAC-SHA256 of `<Unix time>.<body>` under the webhook's secret.
"""

import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from meter.core.budgets import Budget

SIGNATURE = "x-meter-signature"
TYPE = "budget.threshold"
# How long to wait after each failure; after the last one nobody tries again.
PAUSES_SECONDS = (5, 30, 120, 600, 3600, 3600 * 3, 3600 * 6, 3600 * 12)


class Change(NamedTuple):
    """What a window had spent before and after entries of the ledger."""

    budget: Budget
    window_id: int
    before: int
    after: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold of a budget that was reached in one of its windows. Amounts are as in budgets."""

    id: int
    type: str = TYPE
    budget: str
    """The budget's id."""
    whose: str
    measure: str
    threshold: int
    """Percent of the limit."""
    limit: str
    spent: str
    window_start: datetime
    window_end: datetime | None
    at: datetime
    """When the ledger reached it."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How far the delivery of an alert has come."""

    alert: Alert
    attempts: int
    delivered_at: datetime | None
    last_error: str | None
    next_at: datetime | None
    """When it is tried again; `None` is never."""


class Outcome(NamedTuple):
    """What became of one attempt."""

    error: str | None
    """`None`: it was delivered."""


def reached(thresholds: Iterable[int], limit: int, before: int, after: int) -> tuple[int, ...]:
    """Return the thresholds that lie between two sums: percentages of a limit, which may be 0."""
    return tuple(percent for percent in thresholds if before * 100 < percent * limit <= after * 100)


def signature(secret: bytes, body: bytes, at: int) -> str:
    """Sign a body at a Unix time."""
    digest = hmac.digest(secret, b"%d." % at + body, "sha256").hex()
    return f"t={at},v1={digest}"


def next_attempt(attempts: int, now: datetime) -> datetime | None:
    """Say when to try again after so many failures; `None` is never."""
    if attempts > len(PAUSES_SECONDS):
        return None
    return now + timedelta(seconds=PAUSES_SECONDS[attempts - 1])
