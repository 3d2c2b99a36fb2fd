"""The instruments, in a registry of their own.

Labels come from closed sets, so that no client can make series: a model is named only after it has answered
with success, and only the first `MODELS_NAMED_MAX` of them.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from meter import __version__
from meter.core.attempts import succeeded
from meter.core.events import UsageEvent
from meter.core.money import PICODOLLARS_PER_USD

CONTENT_TYPE = CONTENT_TYPE_LATEST
MODELS_NAMED_MAX = 200
OTHER = "other"

_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What one process counts; it starts from zero with the process, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: set[str] = set()
        by_model = ("team", "model")
        self._requests = self._counter("meter_requests", "Upstream attempts.", (*by_model, "outcome"))
        self._tokens = self._counter(
            "meter_tokens",
            "Tokens; cached and cache_write are part of prompt, reasoning of completion.",
            (*by_model, "kind"),
        )
        self._cost = self._counter("meter_cost_usd", "Cost of what has a price.", by_model)
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
            "meter_build_info", "The version that runs.", ("version",), registry=self.registry
        )
        self._build.labels(__version__).set(1)

    def observe(self, event: UsageEvent, team: str) -> None:
        """Count one settled event."""
        labels = (team, self._model(event))
        self._requests.labels(*labels, event.outcome).inc()
        for kind in ("prompt", "completion", "cached", "cache_write", "reasoning"):
            self._tokens.labels(*labels, kind).inc(getattr(event, f"{kind}_tokens"))
        if event.cost is None:
            self._unpriced.labels(*labels).inc()
        else:
            self._cost.labels(*labels).inc(event.cost / PICODOLLARS_PER_USD)
        self._sources.labels(event.usage_source).inc()
        self._source_tokens.labels(event.usage_source).inc(event.total_tokens)
        for anomaly in event.anomalies:
            self._anomalies.labels(anomaly).inc()
        if event.ttfb_ms is not None:
            self._ttfb.observe(event.ttfb_ms / 1000)

    def refuse(self, reason: str) -> None:
        """Count one refusal by the code of its error."""
        self._refusals.labels(reason).inc()

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes."""
        return generate_latest(self.registry)

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
