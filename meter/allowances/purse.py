"""What a process holds of one window: how much, how much of it is promised, how much is on its way back."""

import msgspec

from meter.core.budgets import Budget, Span

# Held and promised to nobody for this long, it goes back.
IDLE_SECONDS = 2.0
# An allowance is to last for about so long.
AHEAD_SECONDS = 2.0
# Near the limit there is nothing ahead, and asking at every request would not change that.
ASK_AGAIN_SECONDS = 0.25


class Purse(msgspec.Struct):
    """One window of one budget, as this process sees it. Used by the event loop's thread alone."""

    budget: Budget
    span: Span
    allowance_id: int | None = None
    held: int = 0
    """What the database has reserved for this process."""
    promised: int = 0
    """What requests under way may use, and what settled ones have used that the ledger does not have yet."""
    returning: int = 0
    turn: int = 0
    """In which turn the database said what is held."""
    need: int = 0
    """What the last request asked for."""
    asked_at: float = float("-inf")
    """When the database was last asked for more."""
    used_at: float = float("-inf")
    """When a request was last admitted, on the monotonic clock."""
    pace: float = 0.0
    """What requests have asked for, a second."""

    @property
    def free(self) -> int:
        """What can be promised; below 0 where more is promised than held."""
        return self.held - self.promised - self.returning

    def promise(self, amount: int, at: float) -> None:
        """Set a part aside for a request."""
        self.promised += amount
        self.need = amount
        elapsed = min(at - self.used_at, 10.0)
        # An average over about a second, which forgets a burst as soon as it is over.
        weight = min(1.0, max(elapsed, 0.001))
        self.pace += weight * (amount / max(elapsed, 0.001) - self.pace)
        self.used_at = at

    def learn(self, held: int, turn: int) -> None:
        """Take in what the database holds for this process, unless that is older than what is known."""
        if turn > self.turn:
            self.held, self.turn = held, turn

    def release(self, amount: int) -> None:
        """Take a promise back."""
        self.promised -= amount

    @property
    def wanted(self) -> int:
        """What would serve the requests to come."""
        return int(self.pace * AHEAD_SECONDS)

    def low(self, at: float) -> bool:
        """Say whether it is time to ask for more before requests have to wait for it."""
        return self.free < self.wanted // 2 and at - self.asked_at >= ASK_AGAIN_SECONDS

    def idle(self, at: float) -> int:
        """Return what should go back, because nobody has asked for a while."""
        return max(0, self.free) if at - self.used_at >= IDLE_SECONDS else 0
