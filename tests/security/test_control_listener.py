"""The control listener for whoever comes by a browser, by another name, or by the wrong door."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from meter.app.serving import address, listen
from meter.settings import load
from tests import server, wire
from tests.fake_upstream import FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, length, request
from tests.server import Meter

HOSTS = [
    b"evil.example",
    b"localhost.evil.example",
    b"127.0.0.1.evil.example:8081",
    b"127.0.0.1@evil.example",
    b"evil.example#127.0.0.1",
    b"evil.example/127.0.0.1",
    b"x/api/v1/keys?",
    b"127.0.0.2",
    b"0x7f000001",
    b"2130706433",
    b"0.0.0.0",
    b"[::ffff:127.0.0.2]",
    b"",
    b" ",
    b"localhost\\evil.example",
    b"LOCALHOST.",
    "localhost\u3002evil".encode(),
]
TEAMS = b"GET /api/v1/teams HTTP/1.1"


@pytest.mark.parametrize("host", HOSTS)
def test_another_name_is_not_this_listeners(host: bytes, meter: Meter) -> None:
    """Whatever is no name of the listener is 400, with the token too: a rebound name opens nothing."""
    found = raw.send(
        meter.control_url, request(meter.admin_token, start=TEAMS, host=b"Host: " + host + b"\r\n")
    )

    assert raw.statuses(found) == [400]


TARGETS: dict[bytes, int] = {
    b"http://evil.example/api/v1/teams": 200,
    b"//evil.example/api/v1/teams": 404,
    b"/api/v1/teams@evil": 404,
    b"@evil/api/v1/teams": 400,
    b"/api/v1/../v1/teams": 404,
    b"/api/v1/%2e%2e/v1/teams": 404,
    b"/api/v1/teams%2f": 200,
    b"/api/v1/TEAMS": 404,
    b"/v1/chat/completions": 404,
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_decides_alone(target: bytes, meter: Meter) -> None:
    """The route is the target's path and needs the token, whatever server the target names."""
    start = b"GET " + target + b" HTTP/1.1"
    local = b"Host: localhost\r\n"

    known = raw.statuses(raw.send(meter.control_url, request(meter.admin_token, start=start, host=local)))
    unknown = raw.statuses(raw.send(meter.control_url, request("wrong", start=start, host=local)))

    assert known in ([TARGETS[target]], [400])
    assert unknown != [200]


ORIGINS = ["https://evil.example", "null", "http://localhost:8081", "http://127.0.0.1"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_no_other_origin_reads_an_answer(
    origin: str, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """Neither listener allows a page of another origin to read what it answers, nor asks for its cookies."""
    upstream.answer([response(b'{"choices":[]}')])
    sent = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    sent += [("Access-Control-Request-Headers", "authorization")]
    control = urlsplit(meter.control_url)

    def asked(method: str, target: str, key: str, body: bytes = b"") -> bytes:
        return wire.request(method, target, host=control.netloc, key=key, body=body, headers=sent)

    found = [
        wire.exchange(meter.url, asked("POST", "/v1/chat/completions", holder, BODY)),
        wire.exchange(meter.url, asked("OPTIONS", "/v1/chat/completions", holder)),
        wire.exchange(meter.url, asked("GET", "/health/ready", holder)),
        wire.exchange(meter.control_url, asked("GET", "/api/v1/teams", meter.admin_token)),
        wire.exchange(meter.control_url, asked("OPTIONS", "/api/v1/teams", meter.admin_token)),
        wire.exchange(meter.control_url, asked("GET", "/sign-in", meter.admin_token)),
    ]

    names = {name for answer in found for name, _ in answer.headers}
    assert [answer.status for answer in found] == [200, 405, 200, 200, 405, 200]
    assert [name for name in names if name.startswith("access-control-")] == []


def test_a_form_of_another_site_does_nothing(meter: Meter) -> None:
    """A browser that is signed in sends its cookie along, and the API does not look at cookies."""
    with meter.control as control:
        before = control.get("/api/v1/teams").json()
        sent = {"origin": "https://evil.example", "cookie": f"__Host-meter_session={meter.admin_token}"}
        control.headers.pop("authorization")
        form = control.post("/api/v1/teams", data={"name": "evil"}, headers=sent)
        plain = control.post(
            "/api/v1/teams", content='{"name":"evil"}', headers=sent | {"content-type": "text/plain"}
        )
        page = control.post("/sign-out", data={}, headers=sent)

    with meter.control as control:
        assert control.get("/api/v1/teams").json() == before
    assert {form.status_code, plain.status_code} == {401}
    assert page.status_code in {303, 403}


def test_the_data_listener_tells_nothing_of_itself(meter: Meter) -> None:
    """Health says whether it is well, and neither version, names nor addresses; no header names a server."""
    found = [
        wire.exchange(meter.url, wire.request("GET", path))
        for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/schema", "/v1/models")
    ]

    assert [answer.status for answer in found] == [200, 200, 404, 404, 404, 401]
    told = b"".join(answer.body for answer in found).decode()
    for secret in (str(meter.data_dir), "sqlite", "sk-upstream", "127.0.0.1", meter.first_key, "uvicorn"):
        assert secret not in told
    assert {name for answer in found for name, _ in answer.headers} & {
        "server",
        "x-powered-by",
        "date",
    } == set()


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip"])
def test_a_client_is_no_other_by_saying_so(name: str, upstream: FakeUpstream, meter: Meter) -> None:
    """Limits count by the key, however many addresses a client claims to have."""
    upstream.answer([response(b'{"choices":[]}')])
    key = meter.new_key()
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"rpm": 2}).raise_for_status()

    statuses = [
        wire.post(meter.url, key, wire.chat(), headers=[(name, f"203.0.113.{number}")]).status
        for number in range(4)
    ]

    assert statuses == [200, 200, 429, 429]


def test_nothing_listens_to_others_unless_told_so() -> None:
    """Both listeners are on loopback by default, and the sockets that are opened are those that are named."""
    settings = load({}, None)

    assert (settings.host, settings.admin_host) == ("127.0.0.1", "127.0.0.1")
    with listen(settings.admin_host, 0) as listener:
        assert address(listener).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("token", ["sk-1234", "x" * 31, ""])
def test_a_guessable_token_is_no_token(token: str, tmp_path: Path) -> None:
    """There is no default token; a short one is refused at the start, by a reason that does not show it."""
    env = server.environment(tmp_path / "data", admin_token=token, admin_port=0, port=0)
    if not token:
        env["METER_ADMIN_TOKEN"] = " "

    done = subprocess.run(
        [sys.executable, "-m", "meter", "serve", "--sample"],
        env=env | {"PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "METER_ADMIN_TOKEN" in done.stderr
    assert len(token) < 6 or token not in done.stderr + done.stdout


def test_a_name_of_a_model_makes_no_line_of_the_log(
    upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """A name with line ends and commands for a terminal is refused; in a path it is escaped."""
    upstream.answer([response(b'{"choices":[]}')])
    hostile = 'm"\n{"level":"error"}\x1b[2J'

    refused = wire.post(meter.url, holder, wire.chat(model=hostile))
    asked = raw.send(meter.url, request(holder, start=b"GET /v1/models/%0a%1b[2Jx HTTP/1.1"))
    found = raw.send(meter.url, request(holder, b"User-Agent: a\x1b[2J", b"X-Meter-Tags: \x1b[2J", length()))

    assert (refused.status, raw.statuses(asked)) == (400, [404])
    assert raw.statuses(found) in ([400], [])
    assert upstream.received == []
    lines = meter.log.read_text(encoding="ascii").splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "\x1b" not in meter.log.read_text()
