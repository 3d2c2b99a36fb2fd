"""Estimates err high, grow with the text, and never fail on what a request may hold."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.estimate import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    REQUEST_TOKENS,
    RunningCount,
    choice_texts,
    count_tokens,
    estimate_prompt,
    texts,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "tool_calls", "function", "audio"])
            | st.sampled_from(["input_audio", "file", "data", "file_data", "name", "thinking", "arguments"]),
            inner,
            max_size=4,
        )
    ),
)


@pytest.mark.parametrize(
    ("text", "at_least", "at_most"),
    [
        # Both bounds are rules of thumb, set by hand and not by a tokenizer.
        ("The quick brown fox jumps over the lazy dog.", 10, 15),
        ("def f(x):\n    return x + 1\n", 11, 21),
        ('{"name": "get_weather", "arguments": {"city": "Berlin"}}', 17, 36),
        ("1234567890", 4, 10),
        ("今天天气很好我们去公园散步吧", 12, 24),
        ("Сегодня хорошая погода, пойдём гулять.", 11, 38),
        ("🙂🙂🙂", 6, 6),
        ("", 0, 0),
        (" ", 0, 1),
    ],
)
def test_the_estimate_stays_within_reason(text: str, at_least: int, at_most: int) -> None:
    """Text of every kind is estimated within the bounds that are thought right for it."""
    assert at_least <= count_tokens(text) <= at_most


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def by_the_table(text: str) -> int:
    """Count by the rule as the table of the module has it, a character at a time."""
    letters = sum(character in LETTERS for character in text)
    words = len("".join(character if character in LETTERS else " " for character in text).split())
    others = sum(character.isascii() and character not in f"{LETTERS} " for character in text)
    beyond = sum(len(each.encode("utf-8", "surrogatepass")) for each in text if not each.isascii())
    sixths = max(2 * letters, 6 * words) + 6 * others + 3 * beyond + 6 * text.count("    ")
    return max(math.ceil(sixths / 6), min(1, len(text)))


@given(text=st.text() | st.text("ab1 .\n\tZ\0é") | st.text("a ") | st.text(" \ud800🙂"))
def test_the_estimate_is_that_of_the_table(text: str) -> None:
    """Counting by whole texts gives what counting by characters does."""
    assert count_tokens(text) == by_the_table(text)


@given(texts=st.lists(st.text(max_size=3000), max_size=20))
def test_texts_at_once_are_the_texts_one_by_one(texts: list[str]) -> None:
    """Several events at once come to what they come to one by one."""
    at_once, each = RunningCount(count_tokens), RunningCount(count_tokens)

    for start in range(0, len(texts), 7):
        at_once.add_each(texts[start : start + 7])
    for text in texts:
        each.add([text])

    assert at_once.tokens == each.tokens


@given(one=st.text(), other=st.text())
def test_more_text_is_never_fewer_tokens(one: str, other: str) -> None:
    """The estimate grows with the text, and two halves are at least the whole but for a rounding."""
    both = count_tokens(one + other)

    assert max(count_tokens(one), count_tokens(other)) <= both
    assert both <= count_tokens(one) + count_tokens(other) + 2


def test_lone_surrogates_can_be_counted() -> None:
    """Text that is no UTF-8 is legal in JSON and has tokens."""
    assert count_tokens("\ud800") == 2


@given(pieces=st.lists(st.lists(st.text(max_size=200), max_size=3), max_size=40))
def test_a_running_count_is_that_of_the_text_and_of_the_pieces(pieces: list[list[str]]) -> None:
    """The running count is the larger of the text's length and the number of non-empty pieces."""
    running = RunningCount(len)

    for piece in pieces:
        running.add(piece)

    text = sum(len(text) for piece in pieces for text in piece)
    assert running.tokens == max(text, sum(any(piece) for piece in pieces))


def test_the_texts_of_a_message_are_those_that_are_tokens() -> None:
    """Content, calls of every kind and one of several names for thoughts are text; audio data is not."""
    message: dict[str, Any] = {
        "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:AAAA"}}],
        "reasoning_content": "",
        "reasoning": "b",
        "thinking": "b",
        "tool_calls": [
            {"function": {"name": "c", "arguments": "d"}},
            {"custom": {"name": "e", "input": "f"}},
        ],
        "audio": {"data": "AAAA", "transcript": "g"},
    }

    assert texts(message) == ["a", "b", "c", "d", "e", "f", "g"]


def test_a_choice_speaks_once() -> None:
    """Of a message and a delta side by side one counts, depending on how the answer came."""
    choice = {"message": {"content": "all of it"}, "delta": {"content": "it"}}

    assert choice_texts(choice, whole=True) == ["all of it"]
    assert choice_texts(choice, whole=False) == ["it"]
    assert choice_texts({"text": "x", "delta": None}, whole=False) == ["x"]


TEXT = "Hello there"
TEXT_TOKENS = count_tokens(TEXT)
ONE_MESSAGE = REQUEST_TOKENS + MESSAGE_TOKENS


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, REQUEST_TOKENS),
        ({"messages": [{"role": "user", "content": TEXT}]}, ONE_MESSAGE + TEXT_TOKENS),
        ({"messages": [{"content": [{"type": "text", "text": TEXT}]}]}, ONE_MESSAGE + TEXT_TOKENS),
        ({"messages": [{"content": TEXT, "name": TEXT}]}, ONE_MESSAGE + 2 * TEXT_TOKENS),
        ({"messages": [{"content": [{"type": "thinking", "thinking": TEXT}]}]}, ONE_MESSAGE + TEXT_TOKENS),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {}}]}]}, ONE_MESSAGE + IMAGE_TOKENS),
        (
            {"messages": [{"content": [{"input_audio": {"data": "A" * 4000, "format": "wav"}}]}]},
            ONE_MESSAGE + 7,
        ),
        (
            {"messages": [{"content": [{"input_audio": {"data": "A" * 4000, "format": "mp3"}}]}]},
            ONE_MESSAGE + 25,
        ),
        (
            {"messages": [{"content": [{"file": {"file_data": "A" * 6400}}]}]},
            ONE_MESSAGE + 300 + IMAGE_TOKENS,
        ),
        ({"messages": [{"content": [{"file": {"file_id": "f"}}]}]}, ONE_MESSAGE + IMAGE_TOKENS),
        ({"messages": [None, 7]}, REQUEST_TOKENS + 2 * MESSAGE_TOKENS),
        ({"prompt": TEXT, "suffix": TEXT}, REQUEST_TOKENS + 2 * TEXT_TOKENS),
        ({"input": [TEXT, TEXT]}, REQUEST_TOKENS + 2 * TEXT_TOKENS),
        ({"input": [[1, 2, 3], [4]]}, REQUEST_TOKENS + 4),
        ({"prompt": [1, 2, 3]}, REQUEST_TOKENS + 3),
        ({"input": [{"role": "user", "content": TEXT}]}, ONE_MESSAGE + TEXT_TOKENS),
        ({"input": {"text": TEXT}}, ONE_MESSAGE),
    ],
)
def test_prompts_are_the_sum_of_their_parts(body: dict[str, Any], tokens: int) -> None:
    """Messages, prompts and inputs of every shape count; media count by flat rules, never as text."""
    assert estimate_prompt(body) == tokens


def test_tools_count_as_their_json() -> None:
    """Descriptions of tools are read by the model, with about the signs of compact JSON."""
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"max": 1.5}}}

    tokens = estimate_prompt({"tools": [tool]}) - REQUEST_TOKENS

    text = '[{"type":"function","function":{"name":"f","strict":true,"parameters":{"max":1.5}}}]'
    assert count_tokens(text) <= tokens <= 2 * count_tokens(text)


@given(body=st.dictionaries(st.sampled_from(["messages", "tools", "prompt", "input"]), ANYTHING))
def test_no_request_is_too_odd_to_estimate(body: dict[str, Any]) -> None:
    """Whatever a body holds, its estimate is a positive number."""
    assert estimate_prompt(body) >= REQUEST_TOKENS


def test_depth_and_size_are_no_trouble() -> None:
    """Nesting beyond the stack and integers too long to print are counted."""
    nested: object = "x"
    for _ in range(100_000):
        nested = [{"content": nested}]

    tokens = estimate_prompt({"messages": [{"content": nested}], "tools": [nested, 10**9000]})

    assert tokens > 100_000
