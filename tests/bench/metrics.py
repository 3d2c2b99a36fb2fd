"""What counting an event for the page of metrics costs, in CPU: `make bench-metrics`."""

import gc
import sys
import time
from datetime import UTC, datetime

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.metrics import Metrics

EVENTS = 20_000
ROUNDS = 5
PAGES = 20
MODELS = 20
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def event(model: str) -> UsageEvent:
    """Make an event with tokens of each common kind."""
    return UsageEvent(
        event_id="0192a000-0000-7000-8000-000000000000",
        started_at=NOW,
        team_id="t",
        key_id="k",
        route="chat.completions",
        upstream="default",
        model_requested=model,
        model_served=model,
        stream=False,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        status=200,
        prompt_tokens=12_345,
        cached_tokens=2_345,
        completion_tokens=678,
        reasoning_tokens=78,
        cost=30_000_000_000,
        ttfb_ms=420,
        duration_ms=1_700,
    )


def microseconds(metrics: Metrics, events: list[UsageEvent]) -> float:
    """Return the CPU of counting an event, of many, and of bringing them to the page."""
    started = time.process_time()
    for each in events:
        metrics.observe(each, "team")
        metrics.time(0.0012, None)
    return (time.process_time() - started) / len(events) * 1e6


def main() -> None:
    """Print the figures."""
    metrics = Metrics()
    events = [event(f"openai/gpt-{number % MODELS}") for number in range(EVENTS)]
    gc.collect()
    counting = min(microseconds(metrics, events) for _ in range(ROUNDS))
    sys.stdout.write(f"counting       {counting:8.2f} us an event\n")
    started = time.process_time()
    for _ in range(PAGES):
        metrics.render()
    page = (time.process_time() - started) / PAGES * 1e6
    sys.stdout.write(f"a page of {MODELS} models  {page:8.0f} us\n")


if __name__ == "__main__":
    main()
