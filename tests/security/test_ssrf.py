"""No header, member, target, redirect or environment makes meter connect to anywhere but its upstream."""

import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import server, wire
from tests.fake_upstream import FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, length, request
from tests.server import Meter

OK = [response(b'{"choices":[]}')]


class Canary:
    """A listener to which nobody has a reason to connect."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}/v1"

    def visitors(self) -> int:
        """Count who has connected: the kernel accepts without us."""
        count = 0
        try:
            while True:
                self._listener.accept()[0].close()
                count += 1
        except BlockingIOError:
            return count

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    """Listen where nobody should ask."""
    with closing(Canary()) as listening:
        yield listening


def test_the_canary_notices_visitors(canary: Canary) -> None:
    """Whoever connects is counted, so that nobody counted is nobody."""
    wire.Connection(canary.url).hang_up()

    assert canary.visitors() == 1


HEADERS = [
    "X-Upstream",
    "X-Upstream-Url",
    "X-Upstream-Host",
    "X-Api-Base",
    "X-Base-Url",
    "X-Custom-Host",
    "X-Portkey-Custom-Host",
    "X-Target-Url",
    "X-Openai-Base-Url",
    "Helicone-Openai-Api-Base",
    "X-Provider-Url",
    "X-Forwarded-Host",
    "X-Forwarded-Server",
    "X-Host",
    "X-Real-Host",
    "X-Original-Host",
    "X-Proxy-Host",
    "X-Callback-Url",
    "Forwarded",
    "Origin",
    "Referer",
    "Destination",
    "X-Meter-Upstream",
    "X-Meter-Upstream-Url",
]
MEMBERS = [
    "api_base",
    "base_url",
    "api_url",
    "endpoint",
    "url",
    "host",
    "upstream",
    "proxy",
    "callback_url",
    "webhook_url",
    "azure_endpoint",
    "custom_llm_provider",
    "litellm_params",
    "extra_headers",
    "extra_body",
    "metadata",
    "user",
]


def test_no_header_names_another_upstream(
    upstream: FakeUpstream, meter: Meter, holder: str, canary: Canary
) -> None:
    """Whatever header names a server, the request goes to the configured one and to no other."""
    upstream.answer(OK)
    everywhere = [(name, value) for name in HEADERS for value in (canary.url, canary.address)]
    everywhere += [("Forwarded", f"host={canary.address};proto=http"), ("X-Forwarded-Proto", "https")]

    answer = wire.post(meter.url, holder, wire.chat(), headers=everywhere)

    (received,) = upstream.received
    assert answer.status == 200
    assert received.header("host") == f"127.0.0.1:{upstream.port}"
    assert canary.visitors() == 0


@pytest.mark.parametrize("nested", [False, True])
def test_no_member_names_another_upstream(
    nested: bool, upstream: FakeUpstream, meter: Meter, holder: str, canary: Canary
) -> None:
    """Members of a body are data: they pass as they came, and nobody follows them."""
    upstream.answer(OK)
    value: object = {"api_base": canary.url, "url": canary.url} if nested else canary.url
    body = wire.chat(**dict.fromkeys(MEMBERS, value), tools=[{"type": "url", "url": canary.url}])

    answer = wire.post(meter.url, holder, body)

    (received,) = upstream.received
    assert answer.status == 200
    assert received.body == body
    assert canary.visitors() == 0


def test_no_target_names_another_upstream(
    upstream: FakeUpstream, meter: Meter, holder: str, canary: Canary
) -> None:
    """A target with a server in it reaches the configured one by its path, and CONNECT reaches nobody."""
    upstream.answer(OK)
    absolute = f"POST {canary.url}/chat/completions HTTP/1.1".encode()
    connect = f"CONNECT {canary.address} HTTP/1.1".encode()

    posted = raw.send(meter.url, request(holder, length(), start=absolute) + BODY)
    refused = raw.send(meter.url, request(holder, start=connect))

    assert raw.statuses(posted + refused) == [200, 400]
    assert len(upstream.received) == 1
    assert canary.visitors() == 0


@pytest.mark.parametrize(
    "status",
    ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"],
)
def test_a_redirect_is_an_answer(
    status: str, upstream: FakeUpstream, meter: Meter, holder: str, canary: Canary
) -> None:
    """The client gets the redirect as it came, and meter does not follow it."""
    upstream.answer([response(b"gone", status=status, headers=[("Location", canary.url)])])

    answer = wire.post(meter.url, holder, wire.chat())
    listed = wire.exchange(meter.url, wire.request("GET", "/v1/models", key=holder))

    for got in (answer, listed):
        assert (got.status, got.header("location"), got.body) == (int(status[:3]), canary.url, b"gone")
    assert len(upstream.received) == 2
    assert canary.visitors() == 0


def test_the_environment_has_no_say(
    upstream: FakeUpstream, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies and credentials of the environment are not meter's, also where the host matches."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\ndefault login canary password canary\n")
    netrc.chmod(stat.S_IRUSR)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://canary:canary@{canary.address}")
        monkeypatch.setenv(name.lower(), f"http://canary:canary@{canary.address}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    upstream.answer(OK)

    with server.running(tmp_path / "data", upstream_url=upstream.url) as meter:
        answer = wire.post(meter.url, meter.first_key, wire.chat())

    (received,) = upstream.received
    assert answer.status == 200
    assert received.header("authorization") is None
    assert received.header("proxy-authorization") is None
    assert received.target == "/v1/chat/completions"
    assert canary.visitors() == 0
