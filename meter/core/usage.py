"""Token usage: from what providers send to one set of numbers that can be priced.

Providers agree on the name `usage` and on little else: counts have aliases, overlap, stand in or outside each
other, come as floats and strings, several times, or as zeros. Here they are read once. Where providers
differ, arithmetic on their own total decides, never the provider's name: the same model is counted one way by
one gateway and another way by the next. What is odd is named in `anomalies`, and nothing raises.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec

from meter.core.counts import TOKENS_MAX, TOKENS_PLAUSIBLE_MAX, coerced

# Real usage has some twenty members. The bound keeps a faulty upstream from filling the memory.
MEMBERS_MAX = 64

_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")

# What adds up over the choices of one answer; all other counts are said again by each choice.
_SUMMED = ("completion_tokens", "reasoning_tokens", "output_audio_tokens")

_Path = tuple[str, ...]
_Flags = tuple[str, ...]


def _inside(objects: Sequence[str], member: str) -> tuple[_Path, ...]:
    return tuple((name, member) for name in objects)


# The places where a count may stand. The first that holds a usable number counts.
_ALIASES: Mapping[str, tuple[_Path, ...]] = {
    "prompt_tokens": (("prompt_tokens",), ("input_tokens",)),
    "completion_tokens": (("completion_tokens",), ("output_tokens",)),
    "total_tokens": (("total_tokens",),),
    "cached_tokens": (
        *_inside(_PROMPT_DETAILS, "cached_tokens"),
        ("cached_tokens",),
        ("num_cached_tokens",),
        ("prompt_cache_hit_tokens",),
        ("cache_read_input_tokens",),
    ),
    "cache_write_tokens": (
        *_inside(_PROMPT_DETAILS, "cache_write_tokens"),
        *_inside(_PROMPT_DETAILS, "cache_creation_tokens"),
        *_inside(_PROMPT_DETAILS, "cache_creation_input_tokens"),
        ("cache_creation_input_tokens",),
    ),
    "cache_write_1h_tokens": (
        ("cache_creation", "ephemeral_1h_input_tokens"),
        ("prompt_tokens_details", "cache_creation_token_details", "ephemeral_1h_input_tokens"),
    ),
    "reasoning_tokens": (
        *_inside(_COMPLETION_DETAILS, "reasoning_tokens"),
        ("reasoning_tokens",),
    ),
    "input_audio_tokens": _inside(_PROMPT_DETAILS, "audio_tokens"),
    "output_audio_tokens": _inside(_COMPLETION_DETAILS, "audio_tokens"),
}


# A count with nothing odd about it.
_Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_PLAUSIBLE_MAX)] | None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    cache_creation_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    audio_tokens: _Count = None
    cache_creation_token_details: None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count = None
    audio_tokens: _Count = None


class _PlainUsage(msgspec.Struct):
    """A usage as nearly all are: every count plain, in one of the usual places. It has no others."""

    prompt_tokens: _Count = None
    input_tokens: _Count = None
    completion_tokens: _Count = None
    output_tokens: _Count = None
    total_tokens: _Count = None
    cached_tokens: _Count = None
    num_cached_tokens: _Count = None
    prompt_cache_hit_tokens: _Count = None
    cache_read_input_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    reasoning_tokens: _Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens_details: None = None
    prompt_token_details: None = None
    output_tokens_details: None = None
    cache_creation: None = None


_NO_PROMPT_DETAILS = _PromptDetails()
_NO_COMPLETION_DETAILS = _CompletionDetails()


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """Normalised counts: all of them at least 0, the parts within their wholes."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Part of `prompt_tokens`: read from a cache."""
    cache_write_tokens: int = 0
    """Part of `prompt_tokens`, as a rule; where it overlaps `cached_tokens`, it is charged on top."""
    cache_write_1h_tokens: int = 0
    """Part of `cache_write_tokens`: written to live for an hour."""
    reasoning_tokens: int = 0
    """Part of `completion_tokens`."""
    input_audio_tokens: int = 0
    """Part of `prompt_tokens`."""
    output_audio_tokens: int = 0
    """Part of `completion_tokens`."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion; everything else is a part of them."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def uncached_tokens(self) -> int:
        """What of the prompt was neither read from nor written to a cache."""
        return uncached(self.prompt_tokens, self.cached_tokens, self.cache_write_tokens)


class ReportedUsage(msgspec.Struct, frozen=True, gc=False):
    """The counts as they were sent, under one name each; `None` where nothing usable was sent."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    anomalies: tuple[str, ...] = ()

    @property
    def invalid(self) -> bool:
        """Say whether neither prompt nor completion can be used."""
        return self.prompt_tokens is None and self.completion_tokens is None

    @property
    def all_zero(self) -> bool:
        """Say whether it counts nothing, but says so: some gateways send zeros for "unknown"."""
        counts = msgspec.structs.astuple(self)[: len(_ALIASES)]
        return 0 in counts and not any(counts)


def read_usage(usage: Mapping[str, object]) -> ReportedUsage:
    """Read one usage object, whatever it holds.

    A count may be an integer, an integral number, a fraction (rounded half up) or a string of digits; what is
    negative, not finite, a boolean or beyond 2^63-1 counts as not sent. All but the first two are flagged.
    """
    plain = _read_plainly(usage)
    if plain is not None:
        return plain
    flags: list[str] = []
    counts = {name: _first_usable(usage, paths, flags) for name, paths in _ALIASES.items()}
    return ReportedUsage(**counts, anomalies=unique(flags))


def _read_plainly(usage: Mapping[str, object]) -> ReportedUsage | None:
    """Read a usage with nothing odd in it as the aliases say, of which the first count is the one then."""
    try:
        plain = msgspec.convert(usage, _PlainUsage)
    except ValueError:
        # Of another shape, or with names that are no text.
        return None
    prompt = plain.prompt_tokens_details or _NO_PROMPT_DETAILS
    completion = plain.completion_tokens_details or _NO_COMPLETION_DETAILS
    cached = prompt.cached_tokens
    if cached is None:
        cached = _first(
            plain.cached_tokens,
            plain.num_cached_tokens,
            plain.prompt_cache_hit_tokens,
            plain.cache_read_input_tokens,
        )
    written = prompt.cache_write_tokens
    if written is None:
        written = _first(
            prompt.cache_creation_tokens,
            prompt.cache_creation_input_tokens,
            plain.cache_creation_input_tokens,
        )
    reasoning = completion.reasoning_tokens
    return ReportedUsage(
        plain.input_tokens if plain.prompt_tokens is None else plain.prompt_tokens,
        plain.output_tokens if plain.completion_tokens is None else plain.completion_tokens,
        plain.total_tokens,
        cached,
        written,
        None,
        plain.reasoning_tokens if reasoning is None else reasoning,
        prompt.audio_tokens,
        completion.audio_tokens,
    )


def _first(*counts: int | None) -> int | None:
    for count in counts:
        if count is not None:
            return count
    return None


def merge(
    older: Mapping[str, object], newer: Mapping[str, object], *, details: bool = True
) -> dict[str, object]:
    """Lay a later usage of the same response over an earlier one; the later member wins unless it is null.

    Usage in a stream is a running count, so nothing is ever added. Objects of `details` are merged likewise,
    one level deep. New members beyond `MEMBERS_MAX` are dropped.
    """
    if not older and len(newer) <= MEMBERS_MAX:
        return {name: value for name, value in newer.items() if value is not None}
    merged = dict(older)
    for name, value in newer.items():
        before = merged.get(name)
        if details and isinstance(before, dict) and name.endswith("_details"):
            merged[name] = merge(before, value, details=False) if isinstance(value, dict) else before
        elif value is not None and (name in merged or len(merged) < MEMBERS_MAX):
            merged[name] = value
    return merged


def sum_choices(usages: Sequence[Mapping[str, object]]) -> ReportedUsage:
    """Read usages that stand on the choices, one a choice: the prompt counts once, completions add up."""
    if len(usages) == 1:
        return read_usage(usages[0])
    choices = [read_usage(usage) for usage in usages]
    counts = {
        name: (_sum if name in _SUMMED else _max)([getattr(each, name) for each in choices])
        for name in _ALIASES
    }
    # Each total says the prompt again, so only what goes beyond it adds up.
    known = [each.total_tokens for each in choices if each.total_tokens is not None]
    again = sum(each.prompt_tokens or 0 for each in choices) - (counts["prompt_tokens"] or 0)
    counts["total_tokens"] = max(0, sum(known) - again) if len(known) == len(choices) else None
    flags = [flag for each in choices for flag in each.anomalies]
    return ReportedUsage(**counts, anomalies=unique([*flags, "choice_usage_summed"]))


def normalise(reported: ReportedUsage, model: str | None) -> tuple[TokenUsage, tuple[str, ...]]:
    """Turn what was reported into billable counts; returns them and what was odd.

    `model` is the one that answered: only Gemini's habit of hiding its thoughts in the total needs it. Where
    `reported.invalid`, all counts that it had are still here, and whether to use them is the caller's
    decision.
    """
    usage, inferred = _filled(reported)
    usage, moved = _reconciled(usage, reported.total_tokens, model or "")
    usage, clamped = _clamped(usage)
    flags = (*inferred, *moved, *clamped)
    return usage, unique(flags) if flags else flags


def unique(flags: Iterable[str]) -> tuple[str, ...]:
    """Keep each flag once, in the order in which they came."""
    return tuple(dict.fromkeys(flags))


def _filled(reported: ReportedUsage) -> tuple[TokenUsage, _Flags]:
    """Fill in the one of prompt and completion that is missing, if the total tells it."""
    prompt, completion = reported.prompt_tokens, reported.completion_tokens
    total = reported.total_tokens
    flags: _Flags = ()
    if total is not None and completion is None and prompt is not None and total > prompt:
        completion, flags = total - prompt, ("completion_inferred",)
    elif total is not None and prompt is None and completion is not None and total > completion:
        prompt, flags = total - completion, ("prompt_inferred",)
    # The total is checked, not kept; a count that was not sent is none.
    usage = TokenUsage(
        prompt or 0,
        completion or 0,
        reported.cached_tokens or 0,
        reported.cache_write_tokens or 0,
        reported.cache_write_1h_tokens or 0,
        reported.reasoning_tokens or 0,
        reported.input_audio_tokens or 0,
        reported.output_audio_tokens or 0,
    )
    return usage, flags


def _reconciled(usage: TokenUsage, total: int | None, model: str) -> tuple[TokenUsage, _Flags]:
    """Explain the difference between the total and its parts by the one count that equals it."""
    residual = 0 if total is None else total - usage.prompt_tokens - usage.completion_tokens
    if residual == 0:
        return usage, ()
    cached, reasoning, audio = usage.cached_tokens, usage.reasoning_tokens, usage.input_audio_tokens
    hidden = residual > 0 and not reasoning and "gemini" in model.lower()
    rules = (
        # condition, tokens that the prompt lacks, tokens that the completion lacks, what to call it
        (residual == reasoning, 0, reasoning, ("reasoning_outside_completion",)),
        (residual == cached > usage.prompt_tokens, cached, 0, ("cached_outside_prompt",)),
        (
            cached and reasoning and residual == cached + reasoning,
            cached,
            reasoning,
            ("cached_outside_prompt", "reasoning_outside_completion"),
        ),
        (residual == audio, audio, 0, ("audio_outside_prompt",)),
        (hidden, 0, residual, ("hidden_output_tokens",)),
        (True, 0, 0, ("total_mismatch",)),
    )
    _, prompt, completion, flags = next(rule for rule in rules if rule[0])
    changed = msgspec.structs.replace(
        usage,
        prompt_tokens=usage.prompt_tokens + prompt,
        completion_tokens=usage.completion_tokens + completion,
        reasoning_tokens=residual if flags == ("hidden_output_tokens",) else reasoning,
    )
    return changed, flags


def _clamped(usage: TokenUsage) -> tuple[TokenUsage, _Flags]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if (
        usage.cached_tokens + usage.cache_write_tokens + usage.input_audio_tokens <= prompt
        and usage.cache_write_1h_tokens <= usage.cache_write_tokens
        and usage.reasoning_tokens + usage.output_audio_tokens <= completion
    ):
        # All parts fit into their wholes, side by side.
        return usage, ()
    clamped = msgspec.structs.replace(
        usage,
        cached_tokens=min(usage.cached_tokens, prompt),
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, usage.cache_write_tokens),
        reasoning_tokens=min(usage.reasoning_tokens, completion),
        input_audio_tokens=min(usage.input_audio_tokens, prompt),
        output_audio_tokens=min(usage.output_audio_tokens, completion),
    )
    odd = (
        (usage.cached_tokens > prompt, "cached_exceeds_prompt"),
        (usage.reasoning_tokens > completion, "reasoning_exceeds_completion"),
        (usage.input_audio_tokens > prompt, "audio_exceeds_prompt"),
        (usage.output_audio_tokens > completion, "audio_exceeds_completion"),
        (_write_overlaps(clamped), "cache_write_overlaps_read"),
    )
    return clamped, tuple(flag for condition, flag in odd if condition)


def uncached(prompt_tokens: int, cached_tokens: int, cache_write_tokens: int) -> int:
    """Return what of a prompt was neither read from nor written to a cache."""
    rest = prompt_tokens - cached_tokens - cache_write_tokens
    # Below 0 where what was written must be, in part, what was read: see `_write_overlaps`.
    return rest if rest >= 0 else prompt_tokens - cached_tokens


def _write_overlaps(usage: TokenUsage) -> bool:
    """Say whether the tokens written to a cache must be, in part, those that were read from it."""
    write = usage.cache_write_tokens
    return write > 0 and usage.cached_tokens + write > usage.prompt_tokens


def _first_usable(usage: Mapping[str, object], paths: Iterable[_Path], flags: list[str]) -> int | None:
    for first, *members in paths:
        value = usage.get(first)
        for member in members:
            value = value.get(member) if isinstance(value, dict) else None
        if value is None:
            continue
        if type(value) is int and 0 <= value <= TOKENS_PLAUSIBLE_MAX:
            return value
        count, flag = coerced(value)
        if flag:
            flags.append(flag)
        if count is not None:
            return count
    return None


def _max(counts: Iterable[int | None]) -> int | None:
    return max((count for count in counts if count is not None), default=None)


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return min(sum(known), TOKENS_MAX) if known else None
