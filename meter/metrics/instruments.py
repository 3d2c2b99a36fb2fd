"""The instruments, in a registry of their own.

Labels come from closed sets, so that no client can make series: `meter.metrics.names` has the rule for
models. One process keeps its numbers in memory, several keep them as `meter.metrics.processes` says.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from meter import __version__
from meter.core.attempts import succeeded
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.money import PICODOLLARS_PER_USD
from meter.metrics.ledger import KINDS
from meter.metrics.names import OTHER, Names
from meter.metrics.processes import Together, shared_directory
from meter.metrics.tallies import Counts, Followed, Series, Spread

CONTENT_TYPE = CONTENT_TYPE_LATEST
REFRESH_SECONDS = 1.0

_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_Labels = tuple[str, str, Outcome, UsageSource, bool]
"""A team, a model, how it ended, where its counts are from, and whether its cost is known."""

# When each series began is a second line for every counter, which nothing of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What is counted; it starts from zero with the server, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._directory = shared_directory()
        self._names = Names(self._directory)
        self._shown: list[Collector] = []
        self._series: dict[_Labels, Series] = {}
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._behind: list[Followed | Counts | Spread] = []
        self._catching_up = threading.Lock()
        by_model = ("team", "model")
        self._requests = self._counter("meter_requests", "Upstream attempts.", (*by_model, "outcome"))
        self._tokens = self._counter(
            "meter_tokens",
            "Tokens; cached and cache_write are part of prompt, reasoning of completion.",
            (*by_model, "kind"),
        )
        self._cost = self._counter("meter_cost_usd", "Cost of what has a price.", by_model)
        self._compared_cost = self._dollars(
            "meter_compared_cost_usd", "Our cost of attempts whose cost the upstream reports."
        )
        self._compared_upstream_cost = self._dollars(
            "meter_compared_upstream_cost_usd", "The upstream's cost of the same attempts."
        )
        self._unpriced = self._counter("meter_unpriced", "Attempts whose cost is unknown.", by_model)
        self._sources = self._counter(
            "meter_usage_source", "Attempts by origin of their counts.", ("source",)
        )
        self._source_tokens = self._counter(
            "meter_usage_source_tokens", "Tokens by origin of their counts.", ("source",)
        )
        self._anomalies = self._counts("meter_usage_anomalies", "Odd things in reported usage.", "anomaly")
        self._refusals = self._counts("meter_refusals", "Requests refused by meter.", "reason")
        self._cut = self._counts("meter_connections_cut", "Connections that were cut off.", "reason")
        self._ttfb = self._spread(
            "meter_ttfb_seconds",
            "From opening the upstream attempt to the response's headers.",
            _LATENCY_BUCKETS,
        )
        self._first_token = self._spread(
            "meter_first_token_seconds",
            "Of streams, from opening the upstream attempt to the first token.",
            _LATENCY_BUCKETS,
        )
        self._duration = self._spread(
            "meter_duration_seconds",
            "From opening the upstream attempt to its end.",
            _DURATION_BUCKETS,
        )
        self._overhead = self._spread(
            "meter_overhead_seconds",
            "What meter adds before an attempt and behind it.",
            _OVERHEAD_BUCKETS,
        )
        self._loop_lag = self._spread(
            "meter_event_loop_lag_seconds",
            "How late the event loop comes to what is due.",
            _OVERHEAD_BUCKETS,
        )
        self._cpu = self._counter("meter_cpu_seconds", "Processor time of all processes.", ())
        self._cpu_counted = time.process_time()
        self._build = Gauge(
            "meter_build_info",
            "The version that runs.",
            ("version",),
            registry=self.registry,
            multiprocess_mode="max",
        )
        self._build.labels(__version__).set(1)

    def observe(self, event: UsageEvent, team: str) -> None:
        """Count one settled event; on the event loop's thread, as whatever else happens to requests."""
        cost = event.cost
        labels = (
            team,
            event.model_served or event.model_requested,
            event.outcome,
            event.usage_source,
            cost is not None,
        )
        series = self._series.get(labels) or self._look_up(labels, event.status)
        series.add(event)
        touched: list[Series | Counts | Spread] = [series, self._ttfb, self._duration]
        if cost is not None and event.upstream_cost is not None:
            model = self._model(event.model, event.status)
            self._compared_cost.add(model, cost)
            self._compared_upstream_cost.add(model, event.upstream_cost)
            touched += (self._compared_cost, self._compared_upstream_cost)
        for anomaly in event.anomalies:
            self._anomalies.add(anomaly)
            touched.append(self._anomalies)
        if event.ttfb_ms is not None:
            self._ttfb.add(event.ttfb_ms / 1000)
        if event.duration_ms is not None:
            self._duration.add(event.duration_ms / 1000)
        self._share(touched)

    def time(self, overhead_seconds: float, first_token_seconds: float | None) -> None:
        """Count what an attempt took beside what its event tells."""
        self._overhead.add(overhead_seconds)
        if first_token_seconds is not None:
            self._first_token.add(first_token_seconds)
        self._share((self._overhead, self._first_token))

    def refuse(self, reason: str) -> None:
        """Count one refusal by the code of its error."""
        self._refusals.add(reason)
        self._share((self._refusals,))

    def cut(self, reason: str) -> None:
        """Count one connection that was cut off."""
        self._cut.add(reason)
        self._share((self._cut,))

    def gauge(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float],
        *,
        across: Literal["sum", "max"] = "sum",
    ) -> None:
        """Show a number of the moment; of several processes that live, their sum or the largest."""
        mode: Literal["livesum", "livemax"] = "livesum" if across == "sum" else "livemax"
        gauge = Gauge(name, help_text, registry=self.registry, multiprocess_mode=mode)
        if self._directory is None:
            gauge.set_function(read)
        else:
            self._gauges.append((gauge, read))

    def show(self, collector: Collector) -> None:
        """Show more on the page of this process, which other processes know nothing of."""
        self._shown.append(collector)

    def follow(self, name: str, help_text: str, read: Callable[[], int]) -> None:
        """Show a count that somebody else keeps, and that only grows."""
        self._behind.append(Followed(self._counter(name, help_text, ()), read))

    async def keep_fresh(self) -> None:
        """Write everything down for the process that is asked for it, again and again until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._refresh()
            self._count_cpu()
            due = loop.time() + REFRESH_SECONDS
            await asyncio.sleep(REFRESH_SECONDS)
            self._loop_lag.add(max(0.0, loop.time() - due))

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes: what all processes counted that count together."""
        self._refresh()
        counted = self.registry if self._directory is None else Together(self._directory)
        return generate_latest(_Page((counted, *self._shown)))

    def _count_cpu(self) -> None:
        used = time.process_time()
        self._cpu.inc(used - self._cpu_counted)
        self._cpu_counted = used

    def _refresh(self) -> None:
        for gauge, read in self._gauges:
            gauge.set(read())
        self.catch_up()

    def _share(self, touched: Iterable[Series | Counts | Spread]) -> None:
        """Bring onto the page at once what others go on with who replace this process if it is killed.

        Where there are no others, the counters end with the process, and have time until they are asked for.
        """
        if self._directory is not None:
            with self._catching_up:
                for each in touched:
                    each.catch_up()

    def catch_up(self) -> None:
        """Bring onto the page what was counted since the last time; from any thread."""
        with self._catching_up:
            # Meanwhile the event loop's thread may meet new labels.
            for series in list(self._series.values()):
                series.catch_up()
            for each in self._behind:
                each.catch_up()

    def _look_up(self, labels: _Labels, status: int | None) -> Series:
        """Find what an event is counted in: under `other`, unless its model has a name of its own."""
        team, named, outcome, source, priced = labels
        model = self._model(named, status)
        labels = (team, model, outcome, source, priced)
        found = self._series.get(labels)
        if found is None:
            cost = (self._cost, PICODOLLARS_PER_USD) if priced else (self._unpriced, 1)
            found = self._series[labels] = Series(
                (self._requests.labels(team, model, outcome), 1),
                (self._sources.labels(source), 1),
                (self._source_tokens.labels(source), 1),
                (cost[0].labels(team, model), cost[1]),
                *((self._tokens.labels(team, model, kind), 1) for kind in KINDS),
            )
        return found

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _dollars(self, name: str, help_text: str) -> Counts:
        """Make what counts picodollars by model, to be shown as dollars."""
        return self._counts(name, help_text, "model", PICODOLLARS_PER_USD)

    def _counts(self, name: str, help_text: str, label: str, unit: int = 1) -> Counts:
        counts = Counts(self._counter(name, help_text, (label,)), unit)
        self._behind.append(counts)
        return counts

    def _spread(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Spread:
        spread = Spread(name, help_text, buckets, self.registry)
        self._behind.append(spread)
        return spread

    def _model(self, model: str, status: int | None) -> str:
        if self._names.known(model):
            return model
        answered = status is not None and succeeded(status)
        return model if answered and self._names.take(model) else OTHER


class _Page(Collector):
    """What several collectors have, one after the other."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterable[Metric]:
        for collector in self._collectors:
            yield from collector.collect()
