"""Usage objects of every shape become one set of counts, by arithmetic and not by provider."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core import usage as module
from meter.core.counts import TOKENS_MAX
from meter.core.usage import (
    MEMBERS_MAX,
    ReportedUsage,
    TokenUsage,
    merge,
    normalise,
    read_usage,
    sum_choices,
)

# Every name that means something, and some that mean nothing, with what may stand there.
NAMES = sorted({name for paths in module._ALIASES.values() for path in paths for name in path})  # noqa: SLF001
ODD = st.none() | st.booleans() | st.floats() | st.sampled_from(["7", "x", [], "1.5"])
VALUES = ODD | st.integers(-3, 10**10)
MEMBERS = st.sampled_from([*NAMES, "other", "\ud800"])
DETAILS = st.dictionaries(MEMBERS, VALUES | st.dictionaries(MEMBERS, VALUES, max_size=2), max_size=4)
USAGES = st.dictionaries(MEMBERS, VALUES | DETAILS)
COUNTS = st.none() | st.integers(0, 500) | st.integers(0, TOKENS_MAX)


@pytest.mark.parametrize(
    ("usage", "field", "expected"),
    [
        ({"prompt_tokens": 1, "input_tokens": 2}, "prompt_tokens", 1),
        ({"prompt_tokens": None, "input_tokens": 2}, "prompt_tokens", 2),
        ({"output_tokens": 3}, "completion_tokens", 3),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 5}, "cached_tokens", 0),
        ({"prompt_tokens_details": {"cached_tokens": -1}, "cached_tokens": 5}, "cached_tokens", 5),
        ({"input_tokens_details": {"cached_tokens": 4}}, "cached_tokens", 4),
        ({"prompt_token_details": {"cached_tokens": 4}}, "cached_tokens", 4),
        ({"num_cached_tokens": 4, "prompt_cache_hit_tokens": 5}, "cached_tokens", 4),
        ({"prompt_cache_hit_tokens": 5, "cache_read_input_tokens": 6}, "cached_tokens", 5),
        ({"cache_read_input_tokens": 6}, "cached_tokens", 6),
        ({"prompt_tokens_details": {"cache_write_tokens": 7}}, "cache_write_tokens", 7),
        ({"prompt_tokens_details": {"cache_creation_tokens": 7}}, "cache_write_tokens", 7),
        ({"prompt_tokens_details": {"cache_creation_input_tokens": 7}}, "cache_write_tokens", 7),
        ({"cache_creation_input_tokens": 7}, "cache_write_tokens", 7),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 8}}, "cache_write_1h_tokens", 8),
        ({"reasoning_tokens": 9}, "reasoning_tokens", 9),
        ({"completion_tokens_details": {"reasoning_tokens": 9}}, "reasoning_tokens", 9),
        ({"prompt_tokens_details": {"audio_tokens": 9}}, "input_audio_tokens", 9),
        ({"completion_tokens_details": {"audio_tokens": 9}}, "output_audio_tokens", 9),
        ({"prompt_tokens_details": [1, 2], "cached_tokens": 3}, "cached_tokens", 3),
        ({"total_tokens": Decimal("12.0")}, "total_tokens", 12),
        ({"total_tokens": Decimal("12.5")}, "total_tokens", 13),
        ({"total_tokens": 12.25}, "total_tokens", 12),
        ({"total_tokens": Decimal("1E-999999")}, "total_tokens", 0),
        ({"total_tokens": TOKENS_MAX}, "total_tokens", TOKENS_MAX),
        ({"total_tokens": TOKENS_MAX + 1}, "total_tokens", None),
        ({"total_tokens": Decimal("1E+999999")}, "total_tokens", None),
        ({"total_tokens": "9" * 10_000}, "total_tokens", None),
        ({"total_tokens": "٣"}, "total_tokens", None),
        ({}, "total_tokens", None),
    ],
)
def test_each_count_has_its_aliases(usage: dict[str, Any], field: str, expected: int | None) -> None:
    """A count is read from the first place that holds a usable number."""
    assert getattr(read_usage(usage), field) == expected


@pytest.mark.parametrize(
    ("reported", "model", "expected", "anomalies"),
    [
        (ReportedUsage(10, 2, 12), None, TokenUsage(10, 2), ()),
        (ReportedUsage(10, 2), None, TokenUsage(10, 2), ()),
        (ReportedUsage(None, 2), None, TokenUsage(0, 2), ()),
        (ReportedUsage(10, None, 12), None, TokenUsage(10, 2), ("completion_inferred",)),
        (ReportedUsage(None, 2, 12), None, TokenUsage(10, 2), ("prompt_inferred",)),
        (ReportedUsage(10, None, 10), None, TokenUsage(10, 0), ()),
        (ReportedUsage(10, None, 9), None, TokenUsage(10, 0), ("total_mismatch",)),
        (ReportedUsage(10, 2, 11), None, TokenUsage(10, 2), ("total_mismatch",)),
        (ReportedUsage(10, 2, 99), "gpt-5", TokenUsage(10, 2), ("total_mismatch",)),
        (
            ReportedUsage(10, 2, 15, reasoning_tokens=3),
            "gemini",
            TokenUsage(10, 5, reasoning_tokens=3),
            ("reasoning_outside_completion",),
        ),
        (
            ReportedUsage(10, 2, 32, cached_tokens=20),
            None,
            TokenUsage(30, 2, cached_tokens=20),
            ("cached_outside_prompt",),
        ),
        (
            ReportedUsage(10, 2, 17, cached_tokens=5),
            None,
            TokenUsage(10, 2, cached_tokens=5),
            ("total_mismatch",),
        ),
        (
            ReportedUsage(10, 2, 35, cached_tokens=20, reasoning_tokens=3),
            None,
            TokenUsage(30, 5, cached_tokens=20, reasoning_tokens=3),
            ("cached_outside_prompt", "reasoning_outside_completion"),
        ),
        (
            ReportedUsage(9, 248, 632, input_audio_tokens=375),
            None,
            TokenUsage(384, 248, input_audio_tokens=375),
            ("audio_outside_prompt",),
        ),
        (
            ReportedUsage(35, 12, 109, reasoning_tokens=0),
            "google/Gemini-2.5-pro",
            TokenUsage(35, 74, reasoning_tokens=62),
            ("hidden_output_tokens",),
        ),
        (
            ReportedUsage(35, 12, 109, reasoning_tokens=5),
            "gemini-2.5-pro",
            TokenUsage(35, 12, reasoning_tokens=5),
            ("total_mismatch",),
        ),
        (
            ReportedUsage(10, 2, 12, cached_tokens=161, reasoning_tokens=3),
            None,
            TokenUsage(10, 2, cached_tokens=10, reasoning_tokens=2),
            ("cached_exceeds_prompt", "reasoning_exceeds_completion"),
        ),
        (
            ReportedUsage(10, 2, 12, input_audio_tokens=11, output_audio_tokens=3),
            None,
            TokenUsage(10, 2, input_audio_tokens=10, output_audio_tokens=2),
            ("audio_exceeds_prompt", "audio_exceeds_completion"),
        ),
        (
            ReportedUsage(10, 2, 12, cache_write_tokens=4, cache_write_1h_tokens=9),
            None,
            TokenUsage(10, 2, cache_write_tokens=4, cache_write_1h_tokens=4),
            (),
        ),
    ],
)
def test_counts_are_reconciled_by_arithmetic(
    reported: ReportedUsage, model: str | None, expected: TokenUsage, anomalies: tuple[str, ...]
) -> None:
    """The total tells which count stands outside; the rest is clamped, and all that is odd is named."""
    assert normalise(reported, model) == (expected, anomalies)


def test_uncached_tokens_are_what_is_left_of_the_prompt() -> None:
    """Reads and writes are parts of the prompt, unless they overlap: then only the reads are."""
    assert TokenUsage(2649, 1, cached_tokens=2569, cache_write_tokens=79).uncached_tokens == 1
    assert TokenUsage(2168, 1, cached_tokens=2161, cache_write_tokens=2161).uncached_tokens == 7


@given(
    reported=st.builds(
        ReportedUsage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.just(())
    ),
    model=st.sampled_from([None, "gpt-5", "gemini-2.5"]),
)
def test_parts_never_exceed_their_wholes(reported: ReportedUsage, model: str | None) -> None:
    """Whatever was reported, the counts are at least 0 and the parts fit."""
    usage, _ = normalise(reported, model)

    assert 0 <= usage.cached_tokens <= usage.prompt_tokens
    assert 0 <= usage.input_audio_tokens <= usage.prompt_tokens
    assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
    assert 0 <= usage.output_audio_tokens <= usage.completion_tokens
    assert 0 <= usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert 0 <= usage.uncached_tokens <= usage.prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_later_members_win_unless_they_are_null() -> None:
    """Merging goes member by member, one level into the details, and never adds."""
    older = {"a": 1, "b": 2, "x_details": {"c": 3, "d": 4}, "y_details": {"e": 5}, "z_details": None}
    newer = {"a": None, "b": 7, "x_details": {"c": None, "d": 8}, "y_details": [1], "z_details": {"f": 9}}

    merged = merge(older, newer)

    assert merged == {
        "a": 1,
        "b": 7,
        "x_details": {"c": 3, "d": 8},
        "y_details": {"e": 5},
        "z_details": {"f": 9},
    }


def test_a_merged_usage_does_not_grow_without_end() -> None:
    """An upstream that invents members in every chunk cannot fill the memory."""
    usage: dict[str, object] = {"prompt_tokens": 1}

    for number in range(1000):
        usage = merge(usage, {f"m{number}": number, "prompt_tokens": number})

    assert len(usage) == MEMBERS_MAX
    assert usage["prompt_tokens"] == 999


def test_usages_of_several_choices_share_the_prompt() -> None:
    """The prompt counts once, completions add up, and a total is that of both."""
    first = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 28, "cached_tokens": 4}
    second = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 31}

    assert sum_choices([first, second]) == ReportedUsage(
        20, 14, 39, cached_tokens=4, anomalies=("choice_usage_summed",)
    )


def test_choices_without_totals_have_no_sum_of_totals() -> None:
    """Where one choice has no total, there is none for all; sums stay within the bound."""
    first = {"prompt_tokens": 20, "completion_tokens": TOKENS_MAX, "total_tokens": 25}
    second = {"prompt_tokens": "20", "completion_tokens": 9}

    summed = sum_choices([first, second])

    assert (summed.total_tokens, summed.completion_tokens) == (None, TOKENS_MAX)
    assert summed.anomalies == ("implausible_tokens", "string_tokens", "choice_usage_summed")


@pytest.mark.parametrize(
    ("usage", "zero"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, True),
        ({"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}, True),
        ({"prompt_tokens": 0, "completion_tokens": 1}, False),
        ({"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 1}}, False),
        ({"prompt_tokens": None}, False),
        ({}, False),
    ],
)
def test_all_zero_is_not_the_same_as_nothing(usage: dict[str, Any], *, zero: bool) -> None:
    """A usage is all zero if it says so; one without counts says nothing."""
    assert read_usage(usage).all_zero is zero


@given(USAGES)
def test_the_short_way_to_read_reads_the_same(usage: dict[str, Any]) -> None:
    """A usage with nothing odd in it is read at a glance, and by the rules it would be the same."""
    shortened = module._read_plainly(usage)  # noqa: SLF001 (the short way is what is tested)
    flags: list[str] = []
    aliases = module._ALIASES.items()  # noqa: SLF001
    found = {name: module._first_usable(usage, paths, flags) for name, paths in aliases}  # noqa: SLF001

    if shortened is not None:
        assert shortened == ReportedUsage(**found, anomalies=tuple(flags))
    else:
        assert read_usage(usage) == ReportedUsage(**found, anomalies=module.unique(flags))
