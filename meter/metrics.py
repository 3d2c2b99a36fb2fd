"""The instruments, in a registry of their own.

Labels come from closed sets, so that no client can make series: a model is named only after it has answered
with success, and only the first `MODELS_NAMED_MAX` of them in each process.

One process keeps its numbers in memory. Several keep them in files of one directory, which whoever is asked
adds up; it is named in the environment, where prometheus_client looks when it is imported. A process that
replaces another goes on with its files, so that no counter ever goes back and there are never more files.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from meter import __version__
from meter.core.attempts import succeeded
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.money import PICODOLLARS_PER_USD

CONTENT_TYPE = CONTENT_TYPE_LATEST
MODELS_NAMED_MAX = 200
OTHER = "other"
KINDS = ("prompt", "completion", "cached", "cache_write", "reasoning")
REFRESH_SECONDS = 1.0

_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


def share(directory: Path) -> dict[str, str]:
    """Empty a directory, and return the environment of processes that count in it together."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return {_DIRECTORY_VARIABLE: str(directory)}


def count_as(process: str) -> None:
    """Count under a name that this process's replacement will have too; to be called before any `Metrics`.

    Without it, processes that count together are told apart by their numbers. The name has no underscore.
    """
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def forget(directory: Path, process: str) -> None:
    """Take a process that has ended out of the gauges; what it has counted stays."""
    for path in directory.glob(f"gauge_live*_{process}.db"):
        path.unlink(missing_ok=True)


class _Series(NamedTuple):
    """What events with the same labels are counted in: looked up once, since that takes longest."""

    requests: Counter
    tokens: tuple[Counter, ...]
    cost: Counter
    """In dollars; where the cost is unknown, the number of such attempts."""
    source: Counter
    source_tokens: Counter


class _Compared(NamedTuple):
    """Dollars of the same attempts: what their difference comes to is drift."""

    cost: Counter
    upstream_cost: Counter


class Metrics:
    """What is counted; it starts from zero with the server, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._directory = os.environ.get(_DIRECTORY_VARIABLE)
        self._models: set[str] = set()
        self._series: dict[tuple[str, str, Outcome, UsageSource, bool], _Series] = {}
        self._compared: dict[str, _Compared] = {}
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        by_model = ("team", "model")
        self._requests = self._counter("meter_requests", "Upstream attempts.", (*by_model, "outcome"))
        self._tokens = self._counter(
            "meter_tokens",
            "Tokens; cached and cache_write are part of prompt, reasoning of completion.",
            (*by_model, "kind"),
        )
        self._cost = self._counter("meter_cost_usd", "Cost of what has a price.", by_model)
        self._compared_cost = self._counter(
            "meter_compared_cost_usd", "Our cost of attempts whose cost the upstream reports.", ("model",)
        )
        self._compared_upstream_cost = self._counter(
            "meter_compared_upstream_cost_usd", "The upstream's cost of the same attempts.", ("model",)
        )
        self._unpriced = self._counter("meter_unpriced", "Attempts whose cost is unknown.", by_model)
        self._sources = self._counter(
            "meter_usage_source", "Attempts by origin of their counts.", ("source",)
        )
        self._source_tokens = self._counter(
            "meter_usage_source_tokens", "Tokens by origin of their counts.", ("source",)
        )
        self._anomalies = self._counter(
            "meter_usage_anomalies", "Odd things in reported usage.", ("anomaly",)
        )
        self._refusals = self._counter("meter_refusals", "Requests refused by meter.", ("reason",))
        self._ttfb = Histogram(
            "meter_ttfb_seconds",
            "From opening the upstream attempt to the response's headers.",
            registry=self.registry,
            buckets=_LATENCY_BUCKETS,
        )
        self._build = Gauge(
            "meter_build_info",
            "The version that runs.",
            ("version",),
            registry=self.registry,
            multiprocess_mode="max",
        )
        self._build.labels(__version__).set(1)

    def observe(self, event: UsageEvent, team: str) -> None:
        """Count one settled event."""
        cost, model = event.cost, self._model(event)
        labels = (team, model, event.outcome, event.usage_source, cost is not None)
        series = self._series.get(labels) or self._look_up(labels)
        series.requests.inc()
        counts = (
            event.prompt_tokens,
            event.completion_tokens,
            event.cached_tokens,
            event.cache_write_tokens,
            event.reasoning_tokens,
        )
        for tokens, count in zip(series.tokens, counts, strict=True):
            if count:
                tokens.inc(count)
        series.cost.inc(1 if cost is None else cost / PICODOLLARS_PER_USD)
        if cost is not None and event.upstream_cost is not None:
            compared = self._compared.get(model) or self._look_up_compared(model)
            compared.cost.inc(cost / PICODOLLARS_PER_USD)
            compared.upstream_cost.inc(event.upstream_cost / PICODOLLARS_PER_USD)
        series.source.inc()
        series.source_tokens.inc(event.total_tokens)
        for anomaly in event.anomalies:
            self._anomalies.labels(anomaly).inc()
        if event.ttfb_ms is not None:
            self._ttfb.observe(event.ttfb_ms / 1000)

    def refuse(self, reason: str) -> None:
        """Count one refusal by the code of its error."""
        self._refusals.labels(reason).inc()

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

    async def keep_fresh(self) -> None:
        """Write the gauges down for the process that is asked for them, again and again until cancelled."""
        while True:
            self._refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes: what all processes counted that count together."""
        if self._directory is None:
            return generate_latest(self.registry)
        self._refresh()
        return generate_latest(_Together(Path(self._directory)))

    def _refresh(self) -> None:
        for gauge, read in self._gauges:
            gauge.set(read())

    def _look_up(self, labels: tuple[str, str, Outcome, UsageSource, bool]) -> _Series:
        team, model, outcome, source, priced = labels
        found = self._series[labels] = _Series(
            requests=self._requests.labels(team, model, outcome),
            tokens=tuple(self._tokens.labels(team, model, kind) for kind in KINDS),
            cost=(self._cost if priced else self._unpriced).labels(team, model),
            source=self._sources.labels(source),
            source_tokens=self._source_tokens.labels(source),
        )
        return found

    def _look_up_compared(self, model: str) -> _Compared:
        found = self._compared[model] = _Compared(
            self._compared_cost.labels(model), self._compared_upstream_cost.labels(model)
        )
        return found

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _model(self, event: UsageEvent) -> str:
        model = event.model
        if model in self._models:
            return model
        answered = event.status is not None and succeeded(event.status)
        if not answered or len(self._models) >= MODELS_NAMED_MAX:
            return OTHER
        self._models.add(model)
        return model


class _Together(Collector):
    """What the files of a directory say, added up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        # A file is empty for a moment when it is made, which the library takes for a broken one.
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # It was of a process that has just ended.
