"""What rating an event costs, in CPU, with the book of the real package: `make bench-prices`."""

import gc
import sys
import time
from datetime import UTC, datetime

import msgspec

from meter.app.seeding import read_package
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.prices import PriceBook, rate

EVENTS = 100_000
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
# How the models of the events are called.
CASES = {
    "a list's price": "anthropic/claude-sonnet-4",
    "a dated snapshot": "openai/gpt-4.1-2025-04-14",
    "hours of the day": "deepseek/deepseek-v4-flash",
    "a step at long prompts": "google/gemini-2.5-pro",
    "no price": "deepseek-chat-123",
}


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
        stream=True,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        service_tier="default",
        prompt_tokens=12_345,
        cached_tokens=2_345,
        completion_tokens=678,
        reasoning_tokens=78,
    )


def microseconds(book: PriceBook, events: list[UsageEvent]) -> float:
    """Return the CPU of rating an event, of many."""
    started = time.process_time()
    for each in events:
        rate(each, book)
    return (time.process_time() - started) / len(events) * 1e6


def main() -> None:
    """Print the figures."""
    listed = [msgspec.structs.replace(price, id=id_) for id_, price in enumerate(read_package(NOW), 1)]
    started = time.process_time()
    book = PriceBook(listed)
    sys.stdout.write(
        f"{len(listed)} versions; the book is made in {(time.process_time() - started) * 1e3:.1f} ms\n"
    )
    gc.collect()
    for name, model in CASES.items():
        sys.stdout.write(f"{name:<24} {microseconds(book, [event(model)] * EVENTS):6.2f} us an event\n")
    names = [event(f"made-up/{number}") for number in range(EVENTS)]
    sys.stdout.write(f"{'a name never seen':<24} {microseconds(book, names):6.2f} us an event\n")


if __name__ == "__main__":
    main()
