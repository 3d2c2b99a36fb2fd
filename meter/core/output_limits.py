"""The most tokens that one answer of well-known models can have, as their vendors publish it.

No price list says it, and without it nobody knows what a request without `max_tokens` can cost at most. Only
models of whose limit we are sure are here: xAI and Mistral publish none, and DeepSeek has changed what
stands behind its names. `meter prices set --max-output` says it for others.
"""

from collections.abc import Mapping

from meter.core.model_names import OPENROUTER, vendor_of, without_date

_LIMITS: Mapping[str, Mapping[str, int]] = {
    "anthropic": {
        "claude-3-haiku": 4_096,
        "claude-3-opus": 4_096,
        "claude-3-sonnet": 4_096,
        "claude-3-5-haiku": 8_192,
        "claude-3-5-sonnet": 8_192,
        # By the header `anthropic-beta: output-128k-2025-02-19`; 64,000 without it.
        "claude-3-7-sonnet": 128_000,
        "claude-sonnet-4": 64_000,
        "claude-sonnet-4-0": 64_000,
        "claude-opus-4": 32_000,
        "claude-opus-4-0": 32_000,
        "claude-opus-4-1": 32_000,
        "claude-sonnet-4-5": 64_000,
        "claude-haiku-4-5": 64_000,
        "claude-opus-4-5": 64_000,
        "claude-sonnet-4-6": 64_000,
        "claude-opus-4-6": 128_000,
    },
    "google": {
        "gemini-1.5-flash": 8_192,
        "gemini-1.5-pro": 8_192,
        "gemini-2.0-flash": 8_192,
        "gemini-2.0-flash-lite": 8_192,
        "gemini-2.5-flash": 65_536,
        "gemini-2.5-flash-lite": 65_536,
        "gemini-2.5-pro": 65_536,
        "gemini-3-pro-preview": 65_536,
    },
    "openai": {
        "gpt-3.5-turbo": 4_096,
        "gpt-4": 8_192,
        "gpt-4-turbo": 4_096,
        "gpt-4o": 16_384,
        "gpt-4o-mini": 16_384,
        "gpt-4.1": 32_768,
        "gpt-4.1-mini": 32_768,
        "gpt-4.1-nano": 32_768,
        "gpt-5": 128_000,
        "gpt-5-mini": 128_000,
        "gpt-5-nano": 128_000,
        "gpt-5.1": 128_000,
        "gpt-5.2": 128_000,
        "o1": 100_000,
        "o3": 100_000,
        "o3-mini": 100_000,
        "o4-mini": 100_000,
    },
}


def max_output_tokens(catalog: str, model: str) -> int | None:
    """Return the limit of a model as a list names it; `None` where we do not know one."""
    vendor: str | None = catalog
    if catalog == OPENROUTER:
        prefix, _, model = model.partition("/")
        vendor = vendor_of(prefix)
    limits = _LIMITS.get(vendor or "", {})
    # OpenRouter writes versions with a dot where Anthropic has a hyphen.
    names = (model, without_date(model), without_date(model).replace(".", "-"))
    return next((limits[name] for name in names if name in limits), None)
