"""Whether a stream is asked for its usage: the key's word, then the upstream's, then the setting's."""

import pytest

from meter.core.stream_usage import ALWAYS_SENT, ENSURE, MODES, OBSERVE, mode_for

ANYWHERE = "api.example.com"
SENDS_UNASKED = "openrouter.ai"


@pytest.mark.parametrize(
    ("configured", "default", "host", "mode"),
    [
        ([None, None], ENSURE, ANYWHERE, ENSURE),
        ([None, None], OBSERVE, ANYWHERE, OBSERVE),
        ([None, None], ALWAYS_SENT, ANYWHERE, ALWAYS_SENT),
        ([], ENSURE, ANYWHERE, ENSURE),
        # The first that says something counts.
        ([OBSERVE, None], ENSURE, ANYWHERE, OBSERVE),
        ([None, OBSERVE], ENSURE, ANYWHERE, OBSERVE),
        ([ENSURE, OBSERVE], ALWAYS_SENT, ANYWHERE, ENSURE),
        ([OBSERVE, ENSURE], ALWAYS_SENT, ANYWHERE, OBSERVE),
        # A host that sends usage unasked is asked only by explicit wish.
        ([None, None], ENSURE, SENDS_UNASKED, ALWAYS_SENT),
        ([None, None], OBSERVE, SENDS_UNASKED, OBSERVE),
        ([ENSURE, None], ENSURE, SENDS_UNASKED, ENSURE),
        ([None, ENSURE], OBSERVE, SENDS_UNASKED, ENSURE),
        # Only the very host: no other name that looks like it.
        ([None, None], ENSURE, "openrouter.ai.example.com", ENSURE),
        ([None, None], ENSURE, "notopenrouter.ai", ENSURE),
    ],
)
def test_the_mode(configured: list[str | None], default: str, host: str, mode: str) -> None:
    """The first configured mode wins; the default gives way where the host sends usage unasked."""
    assert mode_for(configured, default=default, host=host) == mode


@pytest.mark.parametrize(
    "host",
    [
        "api.deepseek.com",
        "api.groq.com",
        "api.mistral.ai",
        "api.moonshot.ai",
        "api.perplexity.ai",
        "api.together.xyz",
        "openrouter.ai",
    ],
)
def test_providers_that_send_usage_unasked(host: str) -> None:
    """The providers that always send usage are known by their hosts, and nothing is taken from them."""
    assert mode_for([None, None], default=ENSURE, host=host) == ALWAYS_SENT


def test_routerhub_is_asked() -> None:
    """RouterHub sends a stream's usage only when it is asked for."""
    assert mode_for([None, None], default=ENSURE, host="api.routerhub.ai") == ENSURE


def test_there_are_three_modes() -> None:
    """The modes are those that the settings name."""
    assert MODES == ("ensure", "always_sent", "observe")
