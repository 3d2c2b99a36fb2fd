"""The most that a request can use: every trick to use more is bounded or refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from meter.core.bounds import CHOICES_MAX, IMAGE_TOKENS_MAX, Bound, Ceilings, bound, ceiling, likely
from meter.core.errors import InvalidRequest, RequestNotBounded
from meter.core.prices import LongContext, Price, Rates

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def price(**fields: object) -> Price:
    """Make a price of 3 a prompt token and 15 a completion token."""
    values: dict[str, object] = {
        "id": 1,
        "catalog": "",
        "model": "model",
        "effective_from": NOON,
        "rates": Rates(prompt=3, completion=15),
        "source": "set",
        "created_at": NOON,
    }
    return Price(**values | fields)  # type: ignore[arg-type]


def bounded(document: dict[str, Any], *prices: Price, body_bytes: int = 100, embeds: bool = False) -> Bound:
    """Bound a request with a body of 100 bytes, at one price unless told otherwise."""
    return bound(document, body_bytes=body_bytes, embeds=embeds, ceiling=ceiling(prices or (price(),)))


def test_text_is_bounded_by_its_bytes() -> None:
    """Every token of the prompt takes a byte at least; the answer is as long as the request allows."""
    assert bounded({"max_tokens": 10}) == Bound(prompt_tokens=100, completion_tokens=10, cost=450)


@pytest.mark.parametrize(
    ("document", "completion"),
    [
        ({"max_tokens": 10, "n": 4}, 40),
        ({"max_tokens": 10, "max_completion_tokens": 30}, 30),
        ({"max_completion_tokens": 10, "reasoning": {"max_tokens": 5}}, 15),
        ({"max_tokens": 10, "thinking": {"budget_tokens": 7}}, 17),
        ({"max_tokens": 10, "prompt": ["a", "b", "c"]}, 30),
        ({"max_tokens": 10, "prompt": [[1, 2], [3]], "best_of": 2}, 40),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ({"max_tokens": 10, "n": 0}, 10),
        # Rejected predictions are billed as output.
        ({"max_tokens": 10, "prediction": {"type": "content", "content": "x"}}, 110),
        ({}, 64),
        ({"max_tokens": None}, 64),
    ],
)
def test_the_answer_is_bounded(document: dict[str, Any], completion: int) -> None:
    """By what the request says, for every choice; by what the model can say where it says nothing."""
    assert bounded(document, price(max_output_tokens=64)).completion_tokens == completion


def test_an_embedding_has_no_answer() -> None:
    """Embeddings need no limit of output."""
    assert bounded({}, embeds=True) == Bound(prompt_tokens=100, completion_tokens=0, cost=300)


def test_a_picture_in_the_body_has_its_own_bound() -> None:
    """A small file may hold a large picture."""
    document = {
        "max_tokens": 1,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}],
    }

    assert bounded(document).prompt_tokens == 100 + IMAGE_TOKENS_MAX


def message(part: object) -> dict[str, Any]:
    """Make a request whose message has one part."""
    return {"max_tokens": 1, "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "max_completion_tokens"),
        (message({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}), "messages"),
        (message({"type": "image_url", "image_url": "https://example.com/a.png"}), "messages"),
        (message({"type": "file", "file": {"file_id": "f"}}), "messages"),
        (message({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}), "messages"),
        (message({"type": "something new"}), "messages"),
        ({"max_tokens": 1, "messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages"),
        ({"max_tokens": 1, "tools": [{"type": "web_search"}]}, "tools"),
        ({"max_tokens": 1, "tools": [{"type": "function"}, {"type": "code_interpreter"}]}, "tools"),
        ({"max_tokens": 1, "tools": ["web_search"]}, "tools"),
        ({"max_tokens": 1, "web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"max_tokens": 1, "plugins": [{"id": "web"}]}, "plugins"),
        ({"max_tokens": 1, "models": ["dear"]}, "models"),
        ({"max_tokens": 1, "previous_response_id": "r"}, "previous_response_id"),
        ({"max_tokens": 1, "model": "openai/gpt-4.1:online"}, "model"),
        ({"max_tokens": 1, "prompt": {"id": "p"}}, "prompt"),
    ],
)
def test_what_has_no_bound_is_refused(document: dict[str, Any], param: str) -> None:
    """A request that lets the provider add to it, or fetch something, is refused naming the member."""
    with pytest.raises(RequestNotBounded) as refusal:
        bounded(document)

    assert refusal.value.param == param


@pytest.mark.parametrize(
    "document",
    [
        message({"type": "text", "text": "a"}),
        message({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}),
        {"max_tokens": 1, "tools": [{"type": "function", "function": {"name": "f"}}, {"function": {}}]},
        {"max_tokens": 1, "plugins": [], "tools": [], "web_search_options": None},
        {"max_tokens": 1, "messages": "odd", "tools": {"odd": 1}},
    ],
)
def test_what_is_in_the_body_is_bounded_by_it(document: dict[str, Any]) -> None:
    """Text, audio and the client's own tools are bytes of the body."""
    assert bounded(document).prompt_tokens == 100


@pytest.mark.parametrize(
    "document",
    [
        {"max_tokens": "10"},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_completion_tokens": 10**10},
        {"max_tokens": 1, "n": "4"},
        {"max_tokens": 1, "n": CHOICES_MAX + 1},
        {"max_tokens": 1, "reasoning": {"max_tokens": -5}},
    ],
)
def test_limits_that_are_no_numbers_are_refused(document: dict[str, Any]) -> None:
    """A limit that parsers may read in different ways bounds nothing."""
    with pytest.raises(InvalidRequest):
        bounded(document)


def test_the_dearest_tier_counts() -> None:
    """Whichever tier serves the request, it costs no more."""
    tiers = (price(), price(service_tier="priority", rates=Rates(prompt=6, completion=30, request=7)))

    assert bounded({"max_tokens": 10}, *tiers).cost == 100 * 6 + 10 * 30 + 7


def test_the_dearest_kind_counts() -> None:
    """Any token of the prompt may be written to a cache, and any of the answer may be audio."""
    rates = Rates(prompt=3, cache_write_1h=6, input_audio=40, completion=15, output_audio=80)

    assert bounded({"max_tokens": 10}, price(rates=rates)).cost == 100 * 40 + 10 * 80


def test_a_long_prompt_counts_at_its_rate() -> None:
    """Past the threshold everything is at the higher rate."""
    long = LongContext(above_tokens=50, rates=Rates(prompt=6, completion=30))

    assert bounded({"max_tokens": 10}, price(long_context=(long,))).cost == 100 * 6 + 10 * 30


def test_a_prompt_that_may_be_shorter_counts_at_the_rates_of_shorter_ones() -> None:
    """A prompt has at most as many tokens as bytes, so that any of the steps below may be the one."""
    dear = LongContext(above_tokens=50, rates=Rates(prompt=9, completion=30))
    cheap = LongContext(above_tokens=80, rates=Rates(prompt=1, completion=5))

    assert bounded({"max_tokens": 10}, price(long_context=(dear, cheap))).cost == 100 * 9 + 10 * 30


def test_ceilings_are_of_the_prices_that_are_asked_for() -> None:
    """What is remembered for some prices is never the answer for others."""
    ceilings = Ceilings()
    asked = [(price(rates=Rates(prompt=rate)),) for rate in range(100)]

    found = [ceilings.of(prices) for prices in asked for _ in range(2)]

    assert [each.rates[0].prompt for each in found] == [rate for rate in range(100) for _ in range(2)]


def test_without_a_price_the_cost_is_unknown() -> None:
    """Tokens are bounded all the same."""
    assert bound({"max_tokens": 10}, body_bytes=100, embeds=False, ceiling=ceiling(())) == Bound(
        prompt_tokens=100, completion_tokens=10
    )
    assert bounded({"max_tokens": 10}, price(rates=Rates(prompt=3))).cost is None


@pytest.mark.parametrize(
    ("document", "tokens", "cost"),
    [
        ({}, 110, 3 * 10 + 15 * 100),
        ({"max_tokens": 50}, 60, 3 * 10 + 15 * 50),
        ({"max_tokens": 5000}, 110, 3 * 10 + 15 * 100),
        ({"max_tokens": 50, "n": 2}, 110, 3 * 10 + 15 * 100),
    ],
)
def test_what_is_likely(document: dict[str, Any], tokens: int, cost: int) -> None:
    """The usual size of an answer, but no more than the request allows, for every choice."""
    found = likely(document, prompt_tokens=10, completion_tokens=100, price=price())

    assert found == (cost, tokens, 1)


def test_what_is_likely_without_a_price() -> None:
    """Tokens and requests are counted all the same."""
    assert likely({}, prompt_tokens=10, completion_tokens=100, price=None) == (0, 110, 1)
