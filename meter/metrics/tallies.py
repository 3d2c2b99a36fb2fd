"""Plain numbers that the event loop adds to, and what has been brought onto the page of them.

Counting takes locks, and files where processes count together, so that an event is added to plain numbers
only; they get onto the page together with those of others. One thread adds, and no number ever goes down:
whichever thread brings them onto the page misses none, since it finds next time what it does not see now.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from meter.core.events import UsageEvent


class Followed:
    """A counter of what somebody else counts."""

    def __init__(self, counter: Counter, read: Callable[[], float]) -> None:
        self._counter = counter
        self._read = read
        self._seen = 0.0

    def catch_up(self) -> None:
        """Count what has come since the last time."""
        now = self._read()
        self._counter.inc(now - self._seen)
        self._seen = now


class Counts:
    """How much there was of each of a few things."""

    def __init__(self, counter: Counter, unit: int = 1) -> None:
        """Take the counter, whose one label names the things, and what counts as one there."""
        self._counter = counter
        self._unit = unit
        self._counts: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def add(self, what: str, amount: int = 1) -> None:
        """Count so much of something."""
        self._counts[what] = self._counts.get(what, 0) + amount

    def catch_up(self) -> None:
        """Bring onto the page what has come since the last time; what came to nothing is there too."""
        for what, count in list(self._counts.items()):
            seen = self._seen.get(what)
            if count != seen:
                self._counter.labels(what).inc((count - (seen or 0)) / self._unit)
                self._seen[what] = count


class Spread(Histogram):
    """A histogram of seconds."""

    def __init__(
        self, name: str, help_text: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        super().__init__(name, help_text, buckets=buckets, registry=registry)
        self._counts = [0] * len(self._upper_bounds)
        self._seen = self._counts.copy()
        self._seconds = self._seconds_seen = 0.0

    def add(self, seconds: float) -> None:
        """Count one, in the first bucket that it is not beyond."""
        self._counts[bisect_left(self._upper_bounds, seconds)] += 1
        self._seconds += seconds

    def catch_up(self) -> None:
        """Bring onto the page what has come since the last time."""
        for bucket, count in enumerate(self._counts):
            if count != self._seen[bucket]:
                self._buckets[bucket].inc(count - self._seen[bucket])
                self._seen[bucket] = count
        seconds = self._seconds
        self._sum.inc(seconds - self._seconds_seen)
        self._seconds_seen = seconds


class Series:
    """What events with the same labels come to, and the counters of it."""

    __slots__ = (
        "_counters",
        "_seen",
        "cache_write_tokens",
        "cached_tokens",
        "completion_tokens",
        "cost",
        "prompt_tokens",
        "reasoning_tokens",
        "requests",
    )

    def __init__(self, *counters: tuple[Counter, int]) -> None:
        """Take the counters in the order of `_numbers`, each with what counts as one there."""
        self.requests = self.cost = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.cached_tokens = self.cache_write_tokens = self.reasoning_tokens = 0
        self._counters = counters
        self._seen = self._numbers()

    def add(self, event: UsageEvent) -> None:
        """Count an event; where the cost is unknown, the number of such attempts."""
        self.prompt_tokens += event.prompt_tokens
        self.completion_tokens += event.completion_tokens
        self.cached_tokens += event.cached_tokens
        self.cache_write_tokens += event.cache_write_tokens
        self.reasoning_tokens += event.reasoning_tokens
        cost = event.cost
        self.cost += 1 if cost is None else cost
        # Last, since whoever looks whether something is new looks here.
        self.requests += 1

    def catch_up(self) -> None:
        """Bring onto the page what has come since the last time."""
        if self.requests == self._seen[0]:
            return
        now = self._numbers()
        for (counter, unit), number, seen in zip(self._counters, now, self._seen, strict=True):
            if number != seen:
                counter.inc((number - seen) / unit)
        self._seen = now

    def _numbers(self) -> tuple[int, ...]:
        # The requests first: what was added before them is seen then.
        requests, prompt, completion = self.requests, self.prompt_tokens, self.completion_tokens
        parts = (self.cached_tokens, self.cache_write_tokens, self.reasoning_tokens)
        return (requests, requests, prompt + completion, self.cost, prompt, completion, *parts)
