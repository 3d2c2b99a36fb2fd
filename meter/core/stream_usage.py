"""Whether to ask a provider for a stream's usage.

Providers send the usage of a stream only when `stream_options.include_usage` asks for it, except those that
always do. `ensure` asks and takes the answer out again, `always_sent` and `observe` leave every byte alone.
"""

from collections.abc import Iterable

ENSURE = "ensure"
ALWAYS_SENT = "always_sent"
OBSERVE = "observe"
MODES = (ENSURE, ALWAYS_SENT, OBSERVE)

# Providers that send usage unasked. What they send belongs to the client's view and must not be taken out.
_SENT_UNASKED = (
    "api.deepseek.com",
    "api.groq.com",
    "api.mistral.ai",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "api.perplexity.ai",
    "api.together.ai",
    "api.together.xyz",
    "openrouter.ai",
)


def check_mode(mode: str) -> str:
    """Return a mode, or raise `ValueError` naming those there are."""
    if mode not in MODES:
        raise ValueError(f"must be one of {', '.join(MODES)}")
    return mode


def mode_for(configured: Iterable[str | None], *, default: str, host: str) -> str:
    """Return the mode: the first configured one (of the key, then of the upstream), or the default.

    The default `ensure` gives way where the host is known to send usage unasked.
    """
    chosen = next((mode for mode in configured if mode is not None), None)
    if chosen is not None:
        return chosen
    return ALWAYS_SENT if default == ENSURE and host in _SENT_UNASKED else default
