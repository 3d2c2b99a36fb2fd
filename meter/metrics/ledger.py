"""What the ledger holds, as gauges: unlike counters it is the same whichever server is asked, and since when.

The numbers are read from the database now and then, by one process of a server, and shown as they were read
until they are read again; their age says how long ago that was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from meter.core.budgets import Standing
from meter.core.money import PICODOLLARS_PER_USD
from meter.core.rollup import Sums

KINDS = ("prompt", "completion", "cached", "cache_write", "reasoning")


class _Figure(NamedTuple):
    """One number of a team."""

    name: str
    help: str
    of: Callable[[Sums], float]


_FIGURES = (
    _Figure("meter_ledger_requests", "Upstream attempts in the ledger.", lambda sums: sums.requests),
    _Figure("meter_ledger_errors", "Attempts in the ledger that failed.", lambda sums: sums.errors),
    _Figure(
        "meter_ledger_cost_usd",
        "Cost of what has a price, corrections included.",
        lambda sums: sums.cost / PICODOLLARS_PER_USD,
    ),
    _Figure(
        "meter_ledger_unpriced_requests",
        "Attempts in the ledger whose cost is unknown.",
        lambda sums: sums.unpriced_requests,
    ),
    _Figure(
        "meter_ledger_estimated_requests",
        "Attempts in the ledger whose tokens are estimated.",
        lambda sums: sums.estimated_requests,
    ),
    _Figure(
        "meter_ledger_estimated_tokens",
        "Tokens in the ledger that are estimated.",
        lambda sums: sums.estimated_tokens,
    ),
    _Figure(
        "meter_ledger_invalid_requests",
        "Attempts in the ledger whose usage could not be used.",
        lambda sums: sums.invalid_requests,
    ),
)


class LedgerFigures(Collector):
    """The sums of each team, as they were last told."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told_at = monotonic()
        self._sums: Mapping[str, Sums] = {}
        self._standings: Sequence[Standing] = ()

    def tell(self, sums: Mapping[str, Sums], standings: Sequence[Standing]) -> None:
        """Take in the sums of all teams, by name, and how budgets stand."""
        self._sums, self._standings, self._told_at = sums, standings, self._monotonic()

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        sums = self._sums
        for figure in _FIGURES:
            gauge = GaugeMetricFamily(figure.name, figure.help, labels=("team",))
            for team, each in sums.items():
                gauge.add_metric((team,), figure.of(each))
            yield gauge
        tokens = GaugeMetricFamily(
            "meter_ledger_tokens", "Tokens in the ledger, by kind.", labels=("team", "kind")
        )
        for team, each in sums.items():
            for kind in KINDS:
                tokens.add_metric((team, kind), getattr(each, f"{kind}_tokens"))
        yield tokens
        yield self._remaining()
        age = self._monotonic() - self._told_at
        yield GaugeMetricFamily("meter_ledger_age_seconds", "How long ago the ledger was read.", age)

    def _remaining(self) -> Metric:
        gauge = GaugeMetricFamily(
            "meter_budget_remaining_ratio",
            "What is left of a budget, as part of its limit; below 0 where it was passed.",
            labels=("budget",),
        )
        for standing in self._standings:
            budget = standing.budget
            left = (budget.limit - standing.spent) / budget.limit if budget.limit else 0.0
            # The id stands first, because names repeat.
            gauge.add_metric((f"{budget.id} {budget.whose}",), left)
        return gauge
