"""What surrounds the clients: nothing of this machine configures them."""

import os

import pytest

_CONFIGURING = ("OPENAI_", "LANGCHAIN_", "LANGSMITH_", "CURL_", "REQUESTS_")
_OFF = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "NO_PROXY": "127.0.0.1"}


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep proxies, keys and tracing of the environment away from the clients."""
    for name in list(os.environ):
        if name.upper().startswith(_CONFIGURING) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name, value in _OFF.items():
        monkeypatch.setenv(name, value)
