"""How events add up: one line for each quarter hour, team, key, upstream and model.

Everything kept here is a sum, so that lines can be added in any order and in any portions.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from meter.core.events import UsageEvent, UsageSource
from meter.core.period import bucket


class LineKey(msgspec.Struct, frozen=True, order=True):
    """What a line is the sum for."""

    bucket: datetime
    team_id: str
    key_id: str
    upstream: str
    model: str


class Line(msgspec.Struct):
    """The sums of a line. Costs are picodollars of what has a price."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    upstream_cost: int = 0
    estimated_requests: int = 0
    estimated_tokens: int = 0
    invalid_requests: int = 0
    invalid_tokens: int = 0
    unpriced_requests: int = 0
    unpriced_tokens: int = 0

    def add(self, event: UsageEvent) -> None:
        """Count one event."""
        self.requests += 1
        self.errors += event.failed
        self.prompt_tokens += event.prompt_tokens
        self.completion_tokens += event.completion_tokens
        self.cached_tokens += event.cached_tokens
        self.cache_write_tokens += event.cache_write_tokens
        self.reasoning_tokens += event.reasoning_tokens
        self.upstream_cost += event.upstream_cost or 0
        if event.cost is None:
            self.unpriced_requests += 1
            self.unpriced_tokens += event.total_tokens
        else:
            self.cost += event.cost
        if event.usage_source is UsageSource.ESTIMATED:
            self.estimated_requests += 1
            self.estimated_tokens += event.total_tokens
        elif event.usage_source is UsageSource.INVALID:
            self.invalid_requests += 1
            self.invalid_tokens += event.total_tokens


COUNTS = Line.__struct_fields__


def fold(events: Iterable[UsageEvent]) -> dict[LineKey, Line]:
    """Add events up to lines."""
    lines: dict[LineKey, Line] = {}
    for event in events:
        key = LineKey(bucket(event.started_at), event.team_id, event.key_id, event.upstream, event.model)
        line = lines.get(key)
        if line is None:
            line = lines[key] = Line()
        line.add(event)
    return lines
