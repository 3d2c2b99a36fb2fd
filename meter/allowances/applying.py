"""Which windows limit somebody's requests for a model, and what they want to know of each request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from meter.allowances.purse import Purse
from meter.core.budgets import Budget, Enforcement, Measure, place_of

# What ends there lasts for ever.
END = datetime.max.replace(tzinfo=UTC)


class Need(NamedTuple):
    """What a window asks of a request: which amount, and whether the most or what is likely."""

    purse: Purse
    strict: bool
    at: int
    """The amount's place among `Amounts`."""


class Applying(NamedTuple):
    """The windows that limit somebody's requests for a model, and what their budgets want to know."""

    purses: tuple[Purse, ...]
    needs: tuple[Need, ...]
    """The same, as every request asks it."""
    bounds: bool
    """Whether there are some that may not be passed, and count more than requests."""
    bounds_costs: bool
    """Whether one of them counts costs."""
    guesses: bool
    """Whether there are some that go by what a request will likely use."""
    since: datetime
    until: datetime
    """These are the windows of the instants between."""

    @property
    def counts_costs(self) -> Budget | None:
        """A budget of costs among them."""
        return next((each.budget for each in self.purses if each.budget.measure is Measure.COST), None)


def applying(purses: Sequence[Purse], at: datetime) -> Applying:
    """Say what windows want to know, which are those of an instant until one of them ends."""
    budgets = [purse.budget for purse in purses]
    strict = {each.measure for each in budgets if each.enforcement is Enforcement.STRICT}
    ends = [purse.span.end for purse in purses if purse.span.end is not None]
    return Applying(
        purses=tuple(purses),
        needs=tuple(
            Need(purse, purse.budget.enforcement is Enforcement.STRICT, place_of(purse.budget.measure))
            for purse in purses
        ),
        bounds=bool(strict - {Measure.REQUESTS}),
        bounds_costs=Measure.COST in strict,
        guesses=any(each.enforcement is Enforcement.STANDARD for each in budgets),
        since=max((purse.span.start for purse in purses), default=datetime.min.replace(tzinfo=at.tzinfo)),
        until=min(ends, default=END),
    )
