"""Allowances: parts of a window's room that a process has reserved, and may spend without asking.

A request is admitted when all windows that it falls into have room for what it may use, in what its process
holds or can still reserve. What it did use is moved from reserved to spent by the transaction that puts its
event into the ledger, so that `spent + reserved` never passes the limit.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from meter.core.budgets import Budget, Span, Standing

# With room for fewer requests than this, allowances hold just what requests need: see `extra`.
PLENTY = 200


class Ask(NamedTuple):
    """A request that waits to be admitted: how much it needs of which windows."""

    needs: Mapping[int, int]


class Room(msgspec.Struct):
    """What there is of one window: held by the process and not promised, and free in the database."""

    held: int
    free: int
    taken: int = 0
    """What was taken of the free part, for the process to hold."""

    def fits(self, need: int) -> bool:
        """Say whether there is enough."""
        return need <= self.held + max(0, self.free)

    def take(self, need: int) -> None:
        """Promise a part, of what is held first."""
        more = max(0, need - self.held)
        self.held = max(0, self.held - need)
        self.free -= more
        self.taken += more


def decide(asks: Sequence[Ask], rooms: Mapping[int, Room]) -> list[int | None]:
    """Admit what fits into all of its windows, in order; returns the window that was too full for each."""
    decisions: list[int | None] = []
    for ask in asks:
        full = next((window for window, need in ask.needs.items() if not rooms[window].fits(need)), None)
        decisions.append(full)
        if full is None:
            for window, need in ask.needs.items():
                rooms[window].take(need)
    return decisions


def extra(free: int, need: int, wanted: int) -> int:
    """Say how much more than the need may be held, for requests to come.

    With room for less than `PLENTY` such requests nothing is: what one process held idle would be lacking
    elsewhere. Otherwise at most a hundredth of the room, so that little is idle anywhere.
    """
    return min(wanted, free // 100) if free >= PLENTY * need else 0


class Wish(NamedTuple):
    """A window that asks need, as its holder sees it."""

    budget_id: str
    span: Span
    held: int
    """What it holds and has promised to nobody; below 0 where it has promised more."""
    need: int
    """What one request needs, more or less."""
    wanted: int
    """What would serve the requests to come."""


class Share(NamedTuple):
    """What a holder has of a window."""

    budget_id: str
    start: datetime
    """Which window."""
    allowance_id: int
    amount: int
    room: int
    """What nobody holds of the window; below 0 where more is spent than the limit."""


class Answer(NamedTuple):
    """What became of asks."""

    full: list[Standing | None]
    """For each ask the window that had no room; `None` where it is admitted."""
    shares: list[Share | None]
    """For each wish what is held now; `None` where its budget is gone."""


class Beat(NamedTuple):
    """What a heartbeat brings back."""

    now: datetime
    """By the clock that all servers go by."""
    budgets: list[Budget]
    shares: dict[int, Share]
    """Everything that the holder holds, by the ids of allowances."""
