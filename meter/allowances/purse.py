"""What a process holds of one window: how much, how much of it is promised, how much is on its way back."""

from dataclasses import dataclass, field

from meter.core.allowances import PLENTY, Share
from meter.core.budgets import Budget, Span, place_of

# Held and promised to nobody for this long, it goes back.
IDLE_SECONDS = 2.0
# An allowance is to last for about so long.
AHEAD_SECONDS = 2.0
# While a question is under way, or has just been answered, another one would not change much.
ASK_AGAIN_SECONDS = 0.25
# What a request needs is the most that one needed lately: the largest one is forgotten after a hundred or so.
FADING = 0.95


@dataclass(slots=True, eq=False)
class Purse:
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
    room: int = 0
    """What nobody held of the window then."""
    need: int = 0
    """What a request asks for, at most."""
    asked_at: float = float("-inf")
    """When the database was last asked for more."""
    used_at: float = float("-inf")
    """When a request was last admitted, on the monotonic clock."""
    pace: float = 0.0
    """What requests have asked for, a second."""
    at: int = field(init=False)
    """The place among `Amounts` of what its budget counts."""

    def __post_init__(self) -> None:
        self.put_under(self.budget)

    def put_under(self, budget: Budget) -> None:
        """Go by the budget as it is now."""
        self.budget = budget
        self.at = place_of(budget.measure)

    @property
    def free(self) -> int:
        """What can be promised; below 0 where more is promised than held."""
        return self.held - self.promised - self.returning

    @property
    def scarce(self) -> bool:
        """Say whether there is room for so few requests that what is held here may be lacking elsewhere."""
        return self.room < PLENTY * self.need

    def promise(self, amount: int, at: float) -> int:
        """Set a part aside for a request; returns what is free then, below 0 where the part was not there."""
        self.promised += amount
        if amount < self.need:
            self.need = max(int(self.need * FADING), amount)
        else:
            self.need = amount
        elapsed = at - self.used_at
        if elapsed < 1.0:
            # An average over about a second, which forgets a burst as soon as it is over.
            self.pace += amount - elapsed * self.pace
        else:
            self.pace = amount / min(elapsed, 10.0)
        self.used_at = at
        return self.held - self.promised - self.returning

    def learn(self, share: Share | None, turn: int) -> None:
        """Take in what the database holds for this process, unless that is older than what is known."""
        if turn > self.turn:
            self.turn = turn
            if share is None:
                # Somebody has written it off, or its budget is gone.
                self.held = self.room = 0
            else:
                self.allowance_id, self.held, self.room = share.allowance_id, share.amount, share.room

    def release(self, amount: int) -> None:
        """Take a promise back."""
        self.promised -= amount

    def wanted(self, at: float) -> int:
        """Return what would serve the requests to come: nothing where there are none, or room for few."""
        if self.scarce or at - self.used_at >= IDLE_SECONDS:
            return 0
        return int(self.pace * AHEAD_SECONDS)

    def low(self, at: float) -> bool:
        """Say whether it is time to ask for more before requests have to wait for it."""
        if at - self.asked_at < ASK_AGAIN_SECONDS:
            return False
        return self.free < self.wanted(at) // 2

    def idle(self, at: float) -> int:
        """Return what should go back: what is more than requests to come will need soon."""
        return max(0, self.free - 2 * self.wanted(at))
