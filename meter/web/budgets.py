"""Budgets over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec
from litestar import Controller, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from meter.core.access import Asker, Scope
from meter.core.budget_drafts import Draft, Shown
from meter.core.budgets import THRESHOLDS, Budget
from meter.web.access import FOR_ADMINS, FOR_TEAMS


class NewBudget(msgspec.Struct, forbid_unknown_fields=True):
    """A budget: of a team, of a key, or without either of the whole organisation."""

    limit: str
    """USD as a decimal string, or a whole number of tokens or requests, as a string too."""
    period: Literal["hour", "day", "week", "month", "total"]
    team: str | None = None
    """A team's name or id."""
    key: str | None = None
    """A key's name or id."""
    model: str = ""
    """A pattern for requested models, such as `openai/*`; empty is any."""
    measure: Literal["cost", "tokens", "requests"] = "cost"
    tz: str = "UTC"
    """Whose days and months, by an IANA name."""
    enforcement: Literal["strict", "standard", "warn"] = "standard"
    thresholds: tuple[int, ...] = THRESHOLDS
    """At which percentages of the limit to tell."""

    @property
    def draft(self) -> Draft:
        """The same, to be checked."""
        return Draft(**msgspec.structs.asdict(self))


class BudgetList(msgspec.Struct):
    """Budgets, and how they stand in their windows of now."""

    data: list[Shown]


class RemovedBudget(msgspec.Struct):
    """A budget that is gone."""

    id: str


@dataclass(frozen=True)
class Budgets:
    """What this controller works with."""

    put: Callable[[str, Draft], Shown]
    list_all: Callable[[Scope], list[Shown]]
    remove: Callable[[str, str], Budget]


class BudgetController(Controller):
    """Make, list and take away budgets."""

    path = "/api/v1/budgets"
    tags = ("budgets",)

    @put(sync_to_thread=True, opt=FOR_ADMINS, summary="Make or change a budget")
    def put(
        self, data: JSONBody[NewBudget], budgets: NamedDependency[Budgets], asker: NamedDependency[Asker]
    ) -> Shown:
        """Make a budget, or change the one of the same owner, measure, period and models.

        It takes effect within five seconds, and begins with what has been spent in its window already.
        """
        return budgets.put(asker.actor, data.draft)

    @get(sync_to_thread=True, opt=FOR_TEAMS, summary="List budgets")
    def list_all(self, budgets: NamedDependency[Budgets], asker: NamedDependency[Asker]) -> BudgetList:
        """List budgets; a team's viewer sees those of the team and of its keys."""
        return BudgetList(budgets.list_all(asker.scope))

    @delete(
        "/{budget_id:str}", sync_to_thread=True, status_code=200, opt=FOR_ADMINS, summary="Remove a budget"
    )
    def remove(
        self, budget_id: FromPath[str], budgets: NamedDependency[Budgets], asker: NamedDependency[Asker]
    ) -> RemovedBudget:
        """Take a budget away; requests are not held against it any more."""
        return RemovedBudget(budgets.remove(asker.actor, budget_id).id)
