"""Plain numbers get onto the page whole, whenever and by whichever thread they are brought there."""

import sys
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from meter.metrics import Metrics
from meter.metrics.tallies import Spread
from tests.metrics.test_instruments import KINDS, TEAM, make, value

BUCKETS = (0.01, 0.1, 1.0)
EVENTS = 20_000


def _samples(metric: Histogram) -> Iterator[tuple[str, object, float]]:
    for family in metric.collect():
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.010001, 0.1, 0.99, 1.0, 1.5, 1e9, -0.5])
def test_a_spread_is_a_histogram(seconds: float) -> None:
    """What is added falls into the bucket, also at its edge, into which `observe` puts it."""
    library = Histogram("seconds", "Seconds.", buckets=BUCKETS, registry=CollectorRegistry())
    spread = Spread("seconds", "Seconds.", BUCKETS, CollectorRegistry())
    for number in (seconds, 0.02):
        library.observe(number)
        spread.add(number)

    spread.catch_up()

    assert list(_samples(spread)) == list(_samples(library))


def test_catching_up_counts_nothing_twice() -> None:
    """However often the page is asked for, each event is on it once."""
    metrics = Metrics()
    for number in range(1, 4):
        metrics.observe(make(cost=10**12, upstream_cost=10**12, ttfb_ms=20, anomalies=("odd",)), TEAM)
        metrics.refuse("not_found")
        metrics.catch_up()
        metrics.catch_up()

        assert value(metrics, "meter_requests_total", team=TEAM, model="m", outcome="ok") == number
        assert value(metrics, "meter_cost_usd_total", team=TEAM, model="m") == number
        assert value(metrics, "meter_compared_upstream_cost_usd_total", model="m") == number
        assert value(metrics, "meter_ttfb_seconds_count") == number
        assert value(metrics, "meter_usage_anomalies_total", anomaly="odd") == number
        assert value(metrics, "meter_refusals_total", reason="not_found") == number


def test_threads_that_bring_numbers_lose_none() -> None:
    """While one thread counts and others render, nothing is lost or counted twice."""
    metrics, ended = Metrics(), threading.Event()

    def render() -> None:
        while not ended.is_set():
            metrics.render()

    threads = [threading.Thread(target=render) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for number in range(EVENTS):
            metrics.observe(make(f"m{number % 7}", cost=1, ttfb_ms=number % 300), TEAM)
            metrics.time(0.25, None)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)

    found = {(sample.name, *sample.labels.values()): sample.value for sample in _page(metrics)}
    counted = [found["meter_requests_total", TEAM, f"m{number}", "ok"] for number in range(7)]
    assert sum(counted) == EVENTS
    for kind, count in KINDS.items():
        tokens = [found["meter_tokens_total", TEAM, f"m{number}", kind] for number in range(7)]
        assert tokens == [each * count for each in counted]
    assert found["meter_usage_source_tokens_total", "reported"] == EVENTS * 15
    assert found["meter_ttfb_seconds_count",] == found["meter_overhead_seconds_count",] == EVENTS
    assert found["meter_overhead_seconds_sum",] == EVENTS / 4


def _page(metrics: Metrics) -> Iterator[Sample]:
    metrics.catch_up()
    for family in metrics.registry.collect():
        yield from family.samples
