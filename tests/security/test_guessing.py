"""Wrong keys and tokens: so many a minute from an address, and those that are known go on (T33, T41)."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests import server, wire
from tests.fake_upstream import FakeUpstream
from tests.security.listeners import metric
from tests.server import NO_TLS, Meter

GUESSES_MAX = 5
PROXY = "127.0.0.9"


@pytest.fixture(scope="module")
def guarded(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter that lets nobody guess for long, and believes one proxy, which is not on 127.0.0.1."""
    data_dir = tmp_path_factory.mktemp("guarded") / "data"
    url = upstream_server.url
    with server.running(
        data_dir, upstream_url=url, auth_failures_rpm=GUESSES_MAX, trusted_proxies=PROXY
    ) as running:
        yield running


def ask(meter: Meter, key: str, forwarded: str = "") -> wire.Answer:
    """Ask with a key."""
    headers = [("X-Forwarded-For", forwarded)] if forwarded else []
    return wire.exchange(meter.url, wire.request("GET", "/v1/meter/key", key=key, headers=headers))


def ask_control(meter: Meter, token: str) -> wire.Answer:
    """Ask the control listener with a token."""
    host = meter.control_url.removeprefix("http://")
    return wire.exchange(meter.control_url, wire.request("GET", "/api/v1/teams", host=host, key=token))


def test_guessing_ends_and_known_keys_go_on(guarded: Meter) -> None:
    """Past the limit a wrong key gets 429, whatever it says of itself; a key that works goes on."""
    assert ask(guarded, guarded.first_key).status == 200

    statuses = [ask(guarded, f"mtr_wrong{number}", f"8.8.8.{number}").status for number in range(10)]
    refused = ask(guarded, "mtr_wrong")

    assert statuses[:GUESSES_MAX] == [401] * GUESSES_MAX
    assert statuses[-1] == 429
    assert (refused.status, refused.error["code"]) == (429, "too_many_failures")
    assert 1 <= int(refused.header("retry-after") or 0) <= 12
    assert ask(guarded, guarded.first_key).status == 200
    assert metric(guarded, 'meter_refusals_total{reason="too_many_failures"}') > 0


def test_guessing_tokens_ends_and_the_owner_goes_on(guarded: Meter) -> None:
    """The control listener counts too, for its API and for signing in alike."""
    statuses = [ask_control(guarded, "wrong").status for _ in range(10)]

    assert statuses[:GUESSES_MAX] == [401] * GUESSES_MAX
    assert statuses[-1] == 429
    assert ask_control(guarded, guarded.admin_token).status == 200
    with httpx.Client(base_url=guarded.control_url, trust_env=False, verify=NO_TLS) as browser:
        shown = browser.get("/sign-in")
        cookie = shown.headers["set-cookie"].split(";")[0]
        form = re.search(r'name="form"[^>]*value="([^"]+)"', shown.text)
        assert form is not None
        headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
        tried = browser.post("/sign-in", data={"token": "wrong", "form": form[1]}, headers=headers)
        owner = {"token": guarded.admin_token, "form": form[1]}
        entered = browser.post("/sign-in", data=owner, headers=headers)
    assert tried.status_code == 429
    assert entered.status_code in {302, 303}
