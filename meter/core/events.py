"""The usage event: one attempt at an upstream, the value that travels the whole house."""

from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

import msgspec

from meter.core.usage import TokenUsage

# By a hexadecimal digit that was drawn: the same with the first bits that RFC 9562 gives all its ids.
_VARIANTS = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))

_counts_of = attrgetter(*TokenUsage.__struct_fields__)


class Outcome(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    CLIENT_CLOSED = "client_closed"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CUT = "cut"
    UPSTREAM_ERROR = "upstream_error"
    UNREACHABLE = "unreachable"
    INTERRUPTED = "interrupted"


# A client that leaves is no failure of the upstream's or of meter's.
NOT_FAILED = (Outcome.OK, Outcome.CLIENT_CLOSED)


class UsageSource(StrEnum):
    """Where an event's token counts come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    INVALID = "invalid"
    NONE = "none"


class Reserved(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a request has reserved of an allowance, in the measure of the budget."""

    allowance: int
    amount: int


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One upstream attempt on a metered route. Token counts are normalised and billable."""

    event_id: str
    """A UUIDv7 minted by meter at admission; ids of providers and clients repeat."""
    started_at: datetime
    team_id: str
    key_id: str
    route: str
    upstream: str
    model_requested: str
    stream: bool
    outcome: Outcome
    usage_source: UsageSource
    status: int | None = None
    """The upstream's HTTP status; `None` when no headers came."""
    model_served: str | None = None
    service_tier: str | None = None
    upstream_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Part of `prompt_tokens`."""
    cache_write_tokens: int = 0
    """Part of `prompt_tokens`."""
    reasoning_tokens: int = 0
    """Part of `completion_tokens`."""
    cache_write_1h_tokens: int = 0
    """Part of `cache_write_tokens`."""
    input_audio_tokens: int = 0
    """Part of `prompt_tokens`."""
    output_audio_tokens: int = 0
    """Part of `completion_tokens`."""
    usage_raw: str | None = None
    """The usage object as the upstream sent it, JSON."""
    anomalies: tuple[str, ...] = ()
    cost: int | None = None
    """Picodollars; `None` is unpriced, 0 is free."""
    price_id: int | None = None
    """The version of the price that it was rated by; one that did not price all of it leaves no cost."""
    upstream_cost: int | None = None
    """Picodollars, as the upstream reports it.

    Of a correction, what it adds to the costs that are compared: the event's own if that had no price until
    then, 0 if it had one, `None` if the upstream told no cost.
    """
    upstream_cost_source: str | None = None
    ttfb_ms: int | None = None
    """From the request's arrival at the upstream to its headers."""
    duration_ms: int | None = None
    end_user: str | None = None
    tags: tuple[str, ...] = ()
    cost_bound: int | None = None
    """Under a strict budget: the most that it could cost, in picodollars, when it was admitted."""
    reserved: tuple[Reserved, ...] = ()
    """What had been reserved for it."""
    corrects_id: str | None = None
    """Of a correction: the event whose cost it changes, by its own `cost`, which may be negative."""
    priced_tokens: int | None = None
    """Of a correction: the tokens of the event, if that was unpriced until then."""
    counted_at: datetime | None = None
    """When reports count it, if not when it started: its month was closed before it came."""
    actor: str | None = None
    """Of a correction: who made it."""
    reason: str | None = None
    """Of a correction: why."""

    @property
    def usage(self) -> TokenUsage:
        """The token counts."""
        return TokenUsage(*_counts_of(self))

    @property
    def model(self) -> str:
        """The model that answered, or the requested one where the answer named none."""
        return self.model_served or self.model_requested

    @property
    def total_tokens(self) -> int:
        """Prompt and completion; cached and reasoning tokens are parts of them."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def failed(self) -> bool:
        """Say whether the attempt failed."""
        return self.outcome not in NOT_FAILED


class Place(NamedTuple):
    """A place in the list of all events, which is in the order of their start and then of their ids."""

    started_at: datetime
    event_id: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a list is to have; what is `None` does not matter."""

    team: str | None = None
    """By name or id, and so is the key."""
    key: str | None = None
    model: str | None = None
    upstream: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: Place | None = None
    """Where the page before this one ended."""


class Listed(msgspec.Struct, frozen=True):
    """An event with the names of its team and key, as they are now."""

    event: UsageEvent
    team: str
    key: str


def uuid7(at_ms: int, randomness: bytes) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) of a Unix time in milliseconds and ten random bytes."""
    time, drawn = f"{at_ms:012x}", randomness.hex()
    # The version and the variant take the place of six random bits.
    return f"{time[:8]}-{time[8:]}-7{drawn[1:4]}-{_VARIANTS[drawn[4]]}{drawn[5:8]}-{drawn[8:20]}"
