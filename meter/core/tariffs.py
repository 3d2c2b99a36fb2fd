"""Kinds of tokens, and what a usage costs by the rates that each of them has.

A cost is a sum of whole numbers: tokens of each kind times picodollars a token, which are microdollars a
million tokens. Kinds are disjoint, so that nothing is charged twice:

    prompt          what was neither read from a cache, nor written to one, nor audio
    cached          read from a cache; without a price of its own it costs what the prompt costs
    cache_write     written to a cache for minutes
    cache_write_1h  written to a cache for an hour
    input_audio     audio of the prompt that was not cached
    completion      everything that was generated, reasoning too, but for audio
    output_audio    audio that was generated
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from meter.core.money import Picodollars
from meter.core.usage import uncached

KINDS = (
    "prompt",
    "cached",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "completion",
    "output_audio",
)


class Counts(Protocol):
    """The token counts that cost something: of a usage, or of an event."""

    @property
    def prompt_tokens(self) -> int: ...  # noqa: D102 (as `UsageEvent` says them)
    @property
    def completion_tokens(self) -> int: ...  # noqa: D102
    @property
    def cached_tokens(self) -> int: ...  # noqa: D102
    @property
    def cache_write_tokens(self) -> int: ...  # noqa: D102
    @property
    def cache_write_1h_tokens(self) -> int: ...  # noqa: D102
    @property
    def input_audio_tokens(self) -> int: ...  # noqa: D102
    @property
    def output_audio_tokens(self) -> int: ...  # noqa: D102


class Tariff(NamedTuple):
    """The rates for prompts of more than so many tokens, as costs are worked out by them."""

    above_tokens: int
    rates: tuple[int | None, ...]
    """In the order of `KINDS`."""
    request: int

    def cost(self, usage: Counts) -> Picodollars | None:
        """Work out what a usage costs, or `None` where a part of it is unknown."""
        cost = self.request
        for tokens, rate in zip(_split(usage), self.rates, strict=True):
            if tokens:
                if rate is None:
                    return None
                cost += tokens * rate
        return Picodollars(cost)


def tariff_for(tariffs: Sequence[Tariff], prompt_tokens: int) -> Tariff:
    """Return the rates of a prompt; those for the longest prompts stand first, those for any last."""
    for tariff in tariffs:
        if prompt_tokens > tariff.above_tokens:
            return tariff
    return tariffs[-1]


def _split(usage: Counts) -> tuple[int, ...]:
    """Split a usage into disjoint kinds, in the order of `KINDS`."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    rest = uncached(usage.prompt_tokens, cached, written)
    input_audio, output_audio = usage.input_audio_tokens, usage.output_audio_tokens
    written_1h = usage.cache_write_1h_tokens
    input_audio = min(input_audio, rest) if input_audio else 0
    return (
        rest - input_audio,
        cached,
        written - written_1h,
        written_1h,
        input_audio,
        usage.completion_tokens - output_audio,
        output_audio,
    )


def quantities(usage: Counts) -> tuple[tuple[str, int], ...]:
    """Split a usage into disjoint kinds, and name them."""
    return tuple(zip(KINDS, _split(usage), strict=True))
