"""What requests have reserved: a part of each window that they fall into."""

from collections.abc import Iterable

import msgspec

from meter.allowances.purse import Purse
from meter.core.budgets import Enforcement, Measure, Standing, format_amount
from meter.core.errors import InsufficientQuota, Quota
from meter.core.events import Reserved


class Part(msgspec.Struct, gc=False):
    """What a request has reserved of one window."""

    purse: Purse
    amount: int
    growing: bool = False
    """Whether more is being reserved."""


class Reservation(msgspec.Struct, gc=False):
    """What a request has reserved, of all windows that it falls into."""

    parts: tuple[Part, ...] = ()
    settled: bool = False

    @property
    def reserved(self) -> tuple[Reserved, ...]:
        """The same, for its event."""
        # By way of a list, which takes half the time of a generator; every request does it.
        return tuple(
            [
                Reserved(part.purse.allowance_id, part.amount)
                for part in self.parts
                if part.purse.allowance_id is not None
            ]
        )


def refusal(full: Standing, parts: Iterable[Part]) -> InsufficientQuota:
    """Say why a request does not fit, with the numbers."""
    budget = full.budget
    needed = next(part.amount for part in parts if part.purse.budget.id == budget.id)
    unit = "USD" if budget.measure is Measure.COST else budget.measure
    limit, spent, reserved, need = (
        f"{format_amount(amount, budget.measure)} {unit}"
        for amount in (budget.limit, full.spent, full.reserved, needed)
    )
    quota = Quota(limit=limit, spent=spent, reserved=reserved, needed=need, ends_at=full.end)
    return InsufficientQuota(budget.whose, quota)


def is_strict(parts: Iterable[Part]) -> bool:
    """Say whether a strict budget is among those that a request falls under."""
    return any(part.purse.budget.enforcement is Enforcement.STRICT for part in parts)
