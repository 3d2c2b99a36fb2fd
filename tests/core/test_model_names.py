"""Names of models lead to the places where their prices may be, and to no others."""

import pytest

from meter.core.model_names import Place, catalog_of, places, rule


def shown(model: str, upstream: str = "gateway", catalog: str | None = None) -> list[str]:
    """Write places down as `list:name`, those of one upstream behind its name."""
    return [
        f"{place.catalog or 'own'}{f'@{place.upstream}' if place.upstream else ''}:{place.model}"
        for place in places(model, upstream, catalog)
    ]


def test_a_name_behind_a_prefix() -> None:
    """The operator's own price comes first, then the vendor's list, then OpenRouter's."""
    assert shown("anthropic/claude-sonnet-4") == [
        "own@gateway:anthropic/claude-sonnet-4",
        "own:anthropic/claude-sonnet-4",
        "anthropic:claude-sonnet-4",
        "openrouter:anthropic/claude-sonnet-4",
    ]


def test_a_dated_snapshot() -> None:
    """Every place is tried with the date of the snapshot, and then without it."""
    assert shown("openai/gpt-4.1-2025-04-14") == [
        "own@gateway:openai/gpt-4.1-2025-04-14",
        "own@gateway:openai/gpt-4.1",
        "own:openai/gpt-4.1-2025-04-14",
        "own:openai/gpt-4.1",
        "openai:gpt-4.1-2025-04-14",
        "openai:gpt-4.1",
        "openrouter:openai/gpt-4.1-2025-04-14",
        "openrouter:openai/gpt-4.1",
    ]


def test_an_upstream_that_is_a_provider() -> None:
    """The list of the provider that is asked comes before what a prefix says."""
    assert shown("x-ai/grok-4", "or", "openrouter")[2:4] == ["openrouter:x-ai/grok-4", "x-ai:grok-4"]


def test_a_prefix_that_names_no_vendor() -> None:
    """A prefix that nobody knows leaves OpenRouter's list."""
    assert shown("qwen/qwen3-max")[2:] == ["openrouter:qwen/qwen3-max"]


def test_a_bare_name() -> None:
    """A bare name is looked for in the vendors' own lists, never in those of resellers."""
    found = shown("gpt-4.1")

    assert found[:5] == [
        "own@gateway:gpt-4.1",
        "own:gpt-4.1",
        "openai:gpt-4.1",
        "anthropic:gpt-4.1",
        "google:gpt-4.1",
    ]
    assert "deepseek:gpt-4.1" in found
    assert not [place for place in found if place.startswith(("openrouter", "groq", "aws", "azure"))]


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-chat-123",
        "gpt-4.1-whatever",
        "claude-sonnet-4-20250514-v2",
        "mistral-large-2411",
        "Claude-Sonnet-4",
        "gpt-4.1 ",
        "model-1999-01-01",
    ],
)
def test_nothing_else_is_left_off(model: str) -> None:
    """What is not a snapshot's date stays part of the name: a guess would put a wrong price on it."""
    assert {place.model for place in places(model, "gateway", None)} == {model}


@pytest.mark.parametrize(
    ("host", "catalog"),
    [
        ("api.openai.com", "openai"),
        ("openrouter.ai", "openrouter"),
        ("api.deepseek.com", "deepseek"),
        ("api.routerhub.ai", None),
        ("openrouter.ai.evil.example", None),
        ("", None),
    ],
)
def test_hosts(host: str, catalog: str | None) -> None:
    """The host of an upstream says whose list holds there, letter by letter."""
    assert catalog_of(host) == catalog


@pytest.mark.parametrize(
    ("place", "model", "words"),
    [
        (Place("", "gateway", "gpt-4.1"), "gpt-4.1", "the operator's own, for this upstream"),
        (Place("", "", "gpt-4.1"), "gpt-4.1", "the operator's own"),
        (Place("openai", "", "gpt-4.1"), "gpt-4.1", "a vendor's list, by the bare name"),
        (
            Place("openai", "", "gpt-4.1"),
            "gpt-4.1-2025-04-14",
            "a vendor's list, by the bare name, without the date of the snapshot",
        ),
        (Place("x-ai", "", "grok-4"), "xai/grok-4", "the list of the vendor that the prefix xai/ names"),
        (Place("openrouter", "", "qwen/qwen3-max"), "qwen/qwen3-max", "OpenRouter's list"),
        (Place("groq", "", "qwen/qwen3"), "qwen/qwen3", "the list of the provider that the upstream is"),
        (Place("openai", "", "gpt-4.1"), "google/gpt-4.1", None),
        (Place("", "elsewhere", "gpt-4.1"), "gpt-4.1", None),
    ],
)
def test_the_rule_can_be_told(place: Place, model: str, words: str | None) -> None:
    """By which rule a name leads to a place is said in words, and nothing where none does."""
    assert rule(place, model, "gateway", "groq") == words


def test_every_place_has_a_rule() -> None:
    """No name leads anywhere without a rule."""
    for model in ("gpt-4.1", "openai/gpt-4.1-2025-04-14", "qwen/qwen3-max", "a/b/c"):
        for catalog in (None, "openrouter", "openai"):
            for place in places(model, "gateway", catalog):
                assert rule(place, model, "gateway", catalog)
