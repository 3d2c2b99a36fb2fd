"""The longest answer of a model is known by each of the names that lists give it."""

import pytest

from meter.core.output_limits import max_output_tokens


@pytest.mark.parametrize(
    ("catalog", "model", "limit"),
    [
        ("anthropic", "claude-sonnet-4", 64_000),
        ("anthropic", "claude-sonnet-4-20250514", 64_000),
        ("openrouter", "anthropic/claude-sonnet-4", 64_000),
        ("openrouter", "anthropic/claude-sonnet-4.5", 64_000),
        ("openrouter", "openai/gpt-4.1", 32_768),
        ("openai", "gpt-4.1-2025-04-14", 32_768),
        ("google", "gemini-2.5-pro", 65_536),
        ("openrouter", "somebody/claude-sonnet-4", None),
        ("openrouter", "anthropic/claude-sonnet-4:thinking", None),
        ("anthropic", "gpt-4.1", None),
        ("x-ai", "grok-4", None),
        ("", "claude-sonnet-4", None),
    ],
)
def test_limits(catalog: str, model: str, limit: int | None) -> None:
    """A limit is that of the vendor's model, under its name, its snapshots' and OpenRouter's; no other."""
    assert max_output_tokens(catalog, model) == limit
