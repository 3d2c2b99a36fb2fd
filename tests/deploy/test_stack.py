"""The compose file's services by hand: nginx before two servers, which are replaced while requests go on."""

import json
import os
import time
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from meter.store.database import Database
from meter.store.tables import usage_events
from tests import server, wire
from tests.deploy import stack
from tests.deploy.load import USAGE, answer, under_load
from tests.deploy.stack import Stack
from tests.fake_upstream import DONE, FakeUpstream, Gate, event
from tests.fake_upstream import stream as sse

# How often all servers are replaced.
pytestmark = pytest.mark.long
FAILURES_MAX = 20
ROUNDS = int(os.environ.get("METER_TEST_ROLLING_ROUNDS", "1"))


@pytest.fixture(scope="module")
def site(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run the stack once for all tests of this module, with one process a server."""
    folder = tmp_path_factory.mktemp("stack")
    settings = {"trusted_proxies": "127.0.0.0/8", "auth_failures_rpm": FAILURES_MAX}
    with stack.running(
        folder, upstream_server.url, workers=1, shutdown_delay_seconds=1, **settings
    ) as running:
        yield running


@pytest.fixture(scope="module")
def key(site: Stack) -> str:
    """Make a key by the admin API, through nginx, with the token of the secret's file."""
    token = (site.secrets / "admin-token").read_text().strip()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{site.control_port}",
        headers={"authorization": f"Bearer {token}", "host": "localhost"},
        trust_env=False,
        timeout=30,
    ) as control:
        team = control.get("/api/v1/teams").json()
        made = control.post("/api/v1/keys", json={"team": "default", "name": "rolling"})
        assert control.get("/metrics").status_code == httpx.codes.NOT_FOUND
    assert made.status_code == httpx.codes.CREATED, (made.text, team)
    found: str = made.json()["key"]
    return found


def test_events_of_a_stream_pass_nginx_as_they_come(site: Stack, key: str, upstream: FakeUpstream) -> None:
    """Nothing is buffered: the client has the first event while the upstream still waits with the second."""
    gate = Gate()
    part = event({"choices": [{"delta": {"content": "Hello"}}]})
    upstream.answer(sse(part, gate, event({"choices": [], "usage": USAGE}), DONE))
    body = wire.chat(model="m", stream=True, stream_options={"include_usage": True})

    with wire.connected(site.url) as connection:
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        connection.read_until(part)
        reached = gate.reached.wait(server.WAIT_SECONDS_MAX)
        gate.open()
        received = connection.read_to_end()

    assert reached
    assert b"data: [DONE]" in received


def test_each_server_is_a_target(site: Stack) -> None:
    """The token of the secret's file scrapes either server by itself, and opens nothing else."""
    token = (site.secrets / "metrics-token").read_text().strip()
    for name in stack.ADDRESSES:
        told = site.environment(name)
        base = f"http://{told['METER_ADMIN_HOST']}:{told['METER_ADMIN_PORT']}"
        headers = {"authorization": f"Bearer {token}", "host": f"{name}:8081"}

        page = httpx.get(f"{base}/metrics", headers=headers, trust_env=False, timeout=30)
        other = httpx.get(f"{base}/api/v1/teams", headers=headers, trust_env=False, timeout=30)

        assert "meter_build_info" in page.text
        assert other.status_code == httpx.codes.FORBIDDEN


def test_servers_are_replaced_while_requests_go_on(site: Stack, key: str, upstream: FakeUpstream) -> None:
    """deploy/roll.sh replaces both: no request fails, and every one is in the ledger once."""
    upstream.answer(answer)
    key_id = key.split("_")[1]
    before = _sums(site, key_id)
    started = time.monotonic()

    with under_load(site.url, key) as load:
        load.wait_for_more(50)
        site.roll(ROUNDS)
        load.wait_for_more(50)

    assert load.failed == []
    prompt, completion = USAGE["prompt_tokens"], USAGE["completion_tokens"]
    expected = (load.answered, load.answered * prompt, load.answered * completion)
    server.until(lambda: _since(site, key_id, before)[0] >= load.answered, "all events")
    assert _since(site, key_id, before) == expected
    print(f"{load.answered} requests, {len(load.failed)} failed, {time.monotonic() - started:.0f} s")  # noqa: T201 (make rolling shows it)
    for name in stack.ADDRESSES:
        verified = site.run(name, "verify")
        assert (verified.returncode, verified.stdout) == (0, "ok\n")


def test_a_doctor_beside_a_server_finds_it_well(site: Stack, upstream: FakeUpstream) -> None:
    """`meter doctor` takes the server's own configuration, and finds nothing that fails."""
    upstream.answer(lambda _request: [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"])

    done = site.run("meter-1", "doctor", "--json")

    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["checks"]


def test_nginx_says_whose_wrong_keys_they_are(site: Stack, key: str, upstream: FakeUpstream) -> None:
    """A client that makes up addresses is one client, and a right key passes beside it."""
    upstream.answer(answer)
    statuses = [
        wire.post(
            site.url, f"mtr_wrong{turn}", wire.chat(), headers=[("X-Forwarded-For", f"10.0.{turn}.1")]
        ).status
        # Each of two servers counts for itself.
        for turn in range(2 * FAILURES_MAX + 1)
    ]

    assert statuses[0] == httpx.codes.UNAUTHORIZED
    assert statuses[-1] == httpx.codes.TOO_MANY_REQUESTS
    assert wire.post(site.url, key, wire.chat()).status == httpx.codes.OK


def _since(site: Stack, key_id: str, before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(now - was for now, was in zip(_sums(site, key_id), before, strict=True))


def _sums(site: Stack, key_id: str) -> tuple[int, ...]:
    event_columns = usage_events.c
    query = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(event_columns.prompt_tokens), 0),
        sa.func.coalesce(sa.func.sum(event_columns.completion_tokens), 0),
    ).where(event_columns.key_id == key_id)
    database = Database(site.database_url)
    with database.read() as connection:
        found = tuple(map(int, connection.execute(query).one()))
    database.dispose()
    return found
