"""Kinds of tokens don't overlap, whatever was reported."""

from hypothesis import given

from meter.core.tariffs import Tariff, quantities, tariff_for
from meter.core.usage import ReportedUsage, TokenUsage, normalise
from tests.core.test_prices import reported


@given(reported)
def test_kinds_are_disjoint(usage: ReportedUsage) -> None:
    """Whatever was reported, no kind is negative, and they add up to the prompt and the completion."""
    normalised, anomalies = normalise(usage, "model")

    split = dict(quantities(normalised))

    assert min(split.values()) >= 0
    assert split["completion"] + split["output_audio"] == normalised.completion_tokens
    prompt = sum(split.values()) - normalised.completion_tokens
    overlap = "cache_write_overlaps_read" in anomalies
    assert prompt == normalised.prompt_tokens + (normalised.cache_write_tokens if overlap else 0)


def test_unknown_is_not_free_whatever_stands_beside_it() -> None:
    """A kind that was used and has no rate leaves no cost; one that was not used needs none."""
    tariff = Tariff(-1, (1, 1, None, None, None, 2, None), 7)

    assert tariff.cost(TokenUsage(10, 5)) == 27
    assert tariff.cost(TokenUsage(10, 5, cached_tokens=4)) == 27
    assert tariff.cost(TokenUsage(10, 5, cache_write_tokens=1)) is None
    assert tariff.cost(TokenUsage(10, 5, output_audio_tokens=5)) is None


def test_rates_are_those_of_the_longest_prompt_that_was_passed() -> None:
    """At a threshold the rates below it count, past it those above."""
    tariffs = [Tariff(at, (at,), 0) for at in (200, 100, -1)]

    assert [tariff_for(tariffs, tokens).above_tokens for tokens in (0, 100, 101, 200, 201)] == [
        -1,
        -1,
        100,
        100,
        200,
    ]
