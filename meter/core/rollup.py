"""How events add up: one line for each quarter hour, team, key, upstream and model.

Everything kept here is a sum, so that lines can be added in any order and in any portions.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from operator import add, attrgetter

import msgspec

from meter.core.events import NOT_FAILED, UsageEvent, UsageSource
from meter.core.period import BUCKET, bucket
from meter.core.spans import Grain, floor

# Parts of the prompt's tokens, or of the completion's.
PARTS = (
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
_NEVER = datetime.min.replace(tzinfo=UTC)


class LineKey(msgspec.Struct, frozen=True, order=True):
    """What a line is the sum for."""

    bucket: datetime
    team_id: str
    key_id: str
    upstream: str
    model: str


class Sums(msgspec.Struct):
    """What is summed, in the rollup as in reports. Costs are picodollars of what has a price."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cost: int = 0
    upstream_cost: int = 0
    compared_cost: int = 0
    """The part of `cost` whose events have a cost of the upstream's too."""
    compared_upstream_cost: int = 0
    """The part of `upstream_cost` whose events have a cost of ours too."""
    estimated_requests: int = 0
    estimated_tokens: int = 0
    invalid_requests: int = 0
    invalid_tokens: int = 0
    unpriced_requests: int = 0
    unpriced_tokens: int = 0
    corrections: int = 0
    """Entries that belong to a closed month: late events, and corrections of its events."""
    correction_cost: int = 0
    """The part of `cost` that comes from them."""

    def add(self, event: UsageEvent) -> None:
        """Count one event, or one correction of an event."""
        cost = event.cost
        if event.corrects_id is None:
            self._add_attempt(event)
        elif event.priced_tokens is not None:
            self.unpriced_requests -= 1
            self.unpriced_tokens -= event.priced_tokens
        if cost is not None:
            self.cost += cost
            if event.upstream_cost is not None:
                self.compared_cost += cost
                self.compared_upstream_cost += event.upstream_cost
        if event.counted_at is not None:
            self.corrections += 1
            self.correction_cost += cost or 0

    def plus(self, other: "Sums") -> "Sums":
        """Add two up."""
        return Sums(*map(add, _counts(self), _counts(other)))

    @property
    def total_tokens(self) -> int:
        """Prompt and completion; the other counts are parts of them."""
        return self.prompt_tokens + self.completion_tokens

    def _add_attempt(self, event: UsageEvent) -> None:
        prompt, completion = event.prompt_tokens, event.completion_tokens
        self.requests += 1
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        # What follows is nothing for most events, and looking takes less than adding.
        if _parts_of(event) != _NO_PARTS:
            self._add_parts(event)
        if event.upstream_cost is not None:
            self.upstream_cost += event.upstream_cost
        if event.outcome not in NOT_FAILED:
            self.errors += 1
        if event.cost is None:
            self.unpriced_requests += 1
            self.unpriced_tokens += prompt + completion
        if event.usage_source is UsageSource.ESTIMATED:
            self.estimated_requests += 1
            self.estimated_tokens += prompt + completion
        elif event.usage_source is UsageSource.INVALID:
            self.invalid_requests += 1
            self.invalid_tokens += prompt + completion

    def _add_parts(self, event: UsageEvent) -> None:
        self.cached_tokens += event.cached_tokens
        self.cache_write_tokens += event.cache_write_tokens
        self.cache_write_1h_tokens += event.cache_write_1h_tokens
        self.reasoning_tokens += event.reasoning_tokens
        self.input_audio_tokens += event.input_audio_tokens
        self.output_audio_tokens += event.output_audio_tokens


COUNTS = Sums.__struct_fields__
_counts = attrgetter(*COUNTS)
_parts_of = attrgetter(*PARTS)
_NO_PARTS = (0,) * len(PARTS)
# Picodollars, and plain numbers.
AMOUNTS = tuple(name for name in COUNTS if "cost" in name)
TALLIES = tuple(name for name in COUNTS if name not in AMOUNTS)
# What says how large something is, and whether it has a price. To sum these alone takes a third of the time.
SIZES = ("requests", "prompt_tokens", "completion_tokens", "unpriced_requests", "cost")


def fold(events: Iterable[UsageEvent]) -> dict[LineKey, Sums]:
    """Add events up to lines."""
    lines: dict[tuple[datetime, str, str, str, str], Sums] = {}
    start = end = _NEVER
    for event in events:
        instant = event.counted_at or event.started_at
        # Most follow others of the same quarter.
        if not start <= instant < end:
            start = bucket(instant)
            end = start + BUCKET
        model = event.model_served or event.model_requested
        key = (start, event.team_id, event.key_id, event.upstream, model)
        line = lines.get(key)
        if line is None:
            line = lines[key] = Sums()
        line.add(event)
    return {LineKey(*key): line for key, line in lines.items()}


def coarser(lines: Mapping[LineKey, Sums], grain: Grain) -> Mapping[LineKey, Sums]:
    """Add lines up to longer periods."""
    if grain == "quarter":
        return lines
    starts = {at: floor(at, grain) for at in {key.bucket for key in lines}}
    found: dict[LineKey, Sums] = {}
    for key, line in lines.items():
        longer = LineKey(starts[key.bucket], key.team_id, key.key_id, key.upstream, key.model)
        before = found.get(longer)
        found[longer] = line if before is None else before.plus(line)
    return found
