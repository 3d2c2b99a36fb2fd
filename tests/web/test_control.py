"""The control plane over a real socket: behind its token, in OpenAI's shape, and live within seconds."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meter.metrics import CONTENT_TYPE
from tests.fake_upstream import FakeUpstream, response
from tests.server import WAIT_SECONDS_MAX, Meter, until

# How long a revoked key may go on working, with some room for a loaded machine.
REVOKED_WITHIN_SECONDS = 5.5
ROUTES = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/keys"),
    ("POST", "/api/v1/keys"),
    ("DELETE", "/api/v1/keys/some-key"),
    ("GET", "/api/v1/teams"),
    ("POST", "/api/v1/teams"),
    ("PATCH", "/api/v1/teams/some-key"),
]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COMPLETION = {
    "id": "gen-1",
    "object": "chat.completion",
    "model": "control/model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.fixture
def control(meter: Meter) -> Iterator[httpx.Client]:
    """Give a client of the control listener, with the token."""
    with meter.control as client:
        yield client


@pytest.fixture
def team(control: httpx.Client) -> str:
    """Make a team that no other test uses."""
    name = f"team {uuid4()}"
    assert control.post("/api/v1/teams", json={"name": name}).status_code == 201
    return name


def is_error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a refusal in OpenAI's shape, and return its error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    document = answer.json()
    assert set(document) == {"error"}
    error: dict[str, Any] = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]
    return error


def ask(meter: Meter, key: str) -> httpx.Response:
    """Ask for a completion."""
    return httpx.post(
        f"{meter.url}/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": "control/model", "messages": []},
        timeout=WAIT_SECONDS_MAX,
        trust_env=False,
    )


def metric(control: httpx.Client, name: str, **labels: str) -> float | None:
    """Read one series."""
    page = control.get("/metrics").text
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer mtr_aaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {shorter}",
    ],
)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_the_token(
    meter: Meter, method: str, path: str, authorization: str | None
) -> None:
    """Without the admin token, or with another one, every route is 401 in OpenAI's shape."""
    headers = {}
    if authorization is not None:
        token = meter.admin_token
        headers["authorization"] = authorization.format(token=token, shorter=token[:-1])

    answer = httpx.request(method, f"{meter.control_url}{path}", headers=headers, trust_env=False)

    is_error(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_clients_key_is_no_admin_token(meter: Meter, key: str) -> None:
    """The key of the data plane opens nothing here."""
    headers = {"authorization": f"Bearer {key}"}

    answer = httpx.get(f"{meter.control_url}/api/v1/keys", headers=headers, trust_env=False)

    is_error(answer, 401, "invalid_api_key")


def test_two_credentials_are_none(meter: Meter) -> None:
    """Two tokens at once, of which one is right, are refused."""
    headers = [("authorization", f"Bearer {meter.admin_token}"), ("authorization", "Bearer wrong")]

    answer = httpx.get(f"{meter.control_url}/api/v1/keys", headers=headers, trust_env=False)

    is_error(answer, 401, "invalid_api_key")


def test_every_documented_route_asks_for_the_token(meter: Meter, control: httpx.Client) -> None:
    """Whatever openapi.json lists is 401 without the token, and the routes that are tested here are in it."""
    paths = control.get("/api/v1/openapi.json").json()["paths"]

    documented = {
        (method.upper(), re.sub(r"\{\w+\}", "some-key", path))
        for path, item in paths.items()
        for method in item
    }
    assert {(method, path) for method, path in ROUTES if "/keys" in path or "/teams" in path} <= documented
    for method, path in documented:
        answer = httpx.request(method, f"{meter.control_url}{path}", trust_env=False)
        is_error(answer, 401, "invalid_api_key")


@pytest.mark.parametrize(
    "path",
    ["/page", "/api", "/api/v1/nothing", "/api/v1/openapi.json/x", "/metrics/x", "/v1/chat/completions"],
)
def test_an_unknown_path_is_not_found(control: httpx.Client, path: str) -> None:
    """What is no route is 404 in OpenAI's shape, the data plane's routes too."""
    # BUG: below /api/v1 the OpenAPI plugin answers what it does not know with an HTML page of its own.
    is_error(control.get(path), 404, "not_found")


def test_completions_are_not_served_here(control: httpx.Client, upstream: FakeUpstream) -> None:
    """The control listener forwards nothing."""
    answer = control.post("/v1/chat/completions", json={"model": "m", "messages": []})

    is_error(answer, 404, "not_found")
    assert upstream.received == []


def test_another_method_is_not_allowed(control: httpx.Client) -> None:
    """A route that exists says which methods it has."""
    answer = control.put("/api/v1/keys")

    is_error(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "", "[::2]"])
@pytest.mark.parametrize("path", ["/metrics", "/api/v1/keys", "/api/v1/openapi.json"])
def test_another_host_is_refused(control: httpx.Client, path: str, host: str) -> None:
    """A page whose name was rebound to this address gets nothing, also with the token."""
    is_error(control.get(path, headers={"host": host}), 400, "invalid_request_error")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "LOCALHOST:8081", "[::1]:8081"])
def test_this_machine_by_any_name_is_served(control: httpx.Client, host: str) -> None:
    """The names of this machine are accepted with any port."""
    assert control.get("/api/v1/keys", headers={"host": host}).status_code == 200


def test_a_team_is_made_and_listed(control: httpx.Client) -> None:
    """A new team has an id and a time, and stands in the list; its name is then taken."""
    name = f"team {uuid4()}"

    made = control.post("/api/v1/teams", json={"name": f" {name} "})

    again = control.post("/api/v1/teams", json={"name": name})
    assert made.status_code == 201
    assert set(made.json()) == {"id", "name", "created_at", "models", "rpm", "tpm", "concurrency"}
    assert made.json()["name"] == name
    assert made.json() in control.get("/api/v1/teams").json()["data"]
    assert is_error(again, 409, "conflict")["param"] == "name"


def test_the_life_of_a_key(control: httpx.Client, team: str) -> None:
    """A key is made with its secret, listed without it, and revoked once."""
    made = control.post("/api/v1/keys", json={"team": team, "name": "ci"})
    listed = control.get("/api/v1/keys", params={"team": team})

    key = made.json()
    revoked = control.delete(f"/api/v1/keys/{key['id']}")
    again = control.delete(f"/api/v1/keys/{key['id']}")

    assert made.status_code == 201
    assert set(key) == {"id", "key", "team", "name", "expires_at"}
    assert (key["team"], key["name"], key["expires_at"]) == (team, "ci", None)
    (shown,) = listed.json()["data"]
    assert (shown["id"], shown["name"], shown["revoked_at"]) == (key["id"], "ci", None)
    assert key["key"].split("_")[2] not in listed.text + revoked.text
    assert revoked.status_code == 200
    assert revoked.json()["revoked_at"] is not None
    assert again.json() == revoked.json()


def test_keys_of_all_teams_are_listed(control: httpx.Client, team: str) -> None:
    """Without a team the list holds everybody's keys; with an unknown one it is 404."""
    key = control.post("/api/v1/keys", json={"team": team}).json()

    everybody = {each["id"] for each in control.get("/api/v1/keys").json()["data"]}

    assert key["id"] in everybody
    assert len(everybody) > 1
    is_error(control.get("/api/v1/keys", params={"team": "nobody"}), 404, "not_found")


def test_a_key_may_expire(control: httpx.Client, team: str, meter: Meter, upstream: FakeUpstream) -> None:
    """A key ends by itself at its time, which is given with its offset."""
    upstream.answer([response(json.dumps(COMPLETION).encode())])

    def used_before_its_end() -> dict[str, Any] | None:
        # A machine that stalls may miss a key's whole life.
        expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
        made = control.post("/api/v1/keys", json={"team": team, "expires_at": expires_at.isoformat()}).json()
        assert datetime.fromisoformat(made["expires_at"]) == expires_at
        return made if ask(meter, made["key"]).status_code == 200 else None

    key = until(used_before_its_end, "a key to be used before its end")

    assert key is not None
    until(lambda: ask(meter, key["key"]).status_code == 401, "the key to end")
    assert datetime.now(UTC) >= datetime.fromisoformat(key["expires_at"])


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/api/v1/teams", {"name": "x", "colour": "red"}, 400, "colour"),
        ("/api/v1/teams", {}, 400, "name"),
        ("/api/v1/teams", {"name": 7}, 400, "name"),
        ("/api/v1/teams", {"name": ""}, 400, "name"),
        ("/api/v1/teams", {"name": "a\nb"}, 400, "name"),
        ("/api/v1/teams", [], 400, ""),
        ("/api/v1/keys", {"team": "default", "budget": 5}, 400, "budget"),
        ("/api/v1/keys", {}, 400, "team"),
        ("/api/v1/keys", {"team": "nobody"}, 404, "nobody"),
        ("/api/v1/keys", {"team": "default", "name": " "}, 400, "name"),
        ("/api/v1/keys", {"team": "default", "expires_at": "soon"}, 400, "expires_at"),
        ("/api/v1/keys", {"team": "default", "expires_at": "2020-01-01T00:00:00Z"}, 400, "expires_at"),
        ("/api/v1/keys", {"team": "default", "expires_at": "2099-01-01T00:00:00"}, 400, "expires_at"),
    ],
)
def test_a_bad_body_is_refused_by_name(
    control: httpx.Client, path: str, body: object, status: int, named: str
) -> None:
    """Whatever is unknown, missing or wrong in a body is a refusal that names it."""
    answer = control.post(path, json=body)

    error = is_error(answer, status, "not_found" if status == 404 else "invalid_request_error")
    assert named in error["message"]


def test_a_body_that_is_missing_is_asked_for(control: httpx.Client) -> None:
    """Whoever sends no body at all is told to send one."""
    answer = control.post("/api/v1/keys/some-key/rotate")

    assert "body is missing" in is_error(answer, 400, "invalid_request_error")["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(control: httpx.Client, content: bytes) -> None:
    """A body that cannot be read is 400 in OpenAI's shape."""
    # BUG: a body of 100,000 opening brackets raises RecursionError in msgspec: 500 and a log entry.
    headers = {"content-type": "application/json"}

    answer = control.post("/api/v1/teams", content=content, headers=headers)

    is_error(answer, 400, "invalid_request_error")


def test_a_large_body_is_refused(control: httpx.Client) -> None:
    """The control plane reads no body beyond its bound."""
    answer = control.post("/api/v1/teams", json={"name": "x" * 2_000_000})

    is_error(answer, 413, "invalid_request_error")


def test_the_document_describes_the_routes(control: httpx.Client) -> None:
    """The description is OpenAPI, lists the routes, and says that all of them want the token."""
    document = control.get("/api/v1/openapi.json").json()

    assert document["openapi"].startswith("3.")
    assert {"/api/v1/keys", "/api/v1/keys/{key_id}", "/api/v1/teams"} <= set(document["paths"])
    assert document["security"] == [{"admin": []}]
    assert document["components"]["securitySchemes"]["admin"]["scheme"] == "bearer"


def test_metrics_are_announced_as_prometheus_text(control: httpx.Client) -> None:
    """The page has Prometheus' content type, each parameter once, and can be read."""
    # BUG: Litestar adds a second "; charset=utf-8". Go's mime.ParseMediaType refuses a duplicate parameter,
    # and Prometheus 3 then fails the scrape ("no fallback_scrape_protocol").
    answer = control.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == [CONTENT_TYPE]
    parameters = [part.partition("=")[0].strip() for part in CONTENT_TYPE.split(";")]
    assert len(set(parameters)) == len(parameters)
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"meter_requests", "meter_tokens", "meter_inflight_requests", "meter_build_info"} <= names


def test_a_request_shows_in_the_metrics(
    meter: Meter, control: httpx.Client, team: str, upstream: FakeUpstream
) -> None:
    """After a completion, its team's counters have its tokens, as the ledger has them."""
    upstream.answer([response(json.dumps(COMPLETION).encode())])
    key = meter.new_key(team)

    assert ask(meter, key).status_code == 200

    event = meter.event(key)
    model = event.model
    labels = {"team": team, "model": model}
    assert model == "control/model"
    assert metric(control, "meter_requests_total", **labels, outcome="ok") == 1
    assert metric(control, "meter_tokens_total", **labels, kind="prompt") == event.prompt_tokens == 11
    assert metric(control, "meter_tokens_total", **labels, kind="completion") == event.completion_tokens == 7
    assert metric(control, "meter_unpriced_total", **labels) == 1
    assert metric(control, "meter_inflight_requests") == 0


def test_a_refusal_shows_in_the_metrics(meter: Meter, control: httpx.Client) -> None:
    """What meter refuses is counted by the code that the client got."""
    before = metric(control, "meter_refusals_total", reason="invalid_api_key") or 0

    assert ask(meter, "wrong").status_code == 401

    assert metric(control, "meter_refusals_total", reason="invalid_api_key") == before + 1


def test_a_revoked_key_stops_working_within_seconds(
    meter: Meter, control: httpx.Client, team: str, upstream: FakeUpstream
) -> None:
    """A key in use is refused at the latest five seconds after it was revoked, and for good."""
    upstream.answer([response(json.dumps(COMPLETION).encode())])
    key = meter.new_key(team)
    assert ask(meter, key).status_code == 200

    assert control.delete(f"/api/v1/keys/{key.split('_')[1]}").status_code == 200
    revoked = time.monotonic()
    admitted_at = [revoked]

    def refused() -> bool:
        began = time.monotonic()
        if ask(meter, key).status_code == 401:
            return True
        admitted_at.append(began)
        return False

    until(refused, "the key to be refused")

    # When the last that was admitted was sent: a machine that stalls makes answers late, not this.
    assert admitted_at[-1] - revoked <= REVOKED_WITHIN_SECONDS
    assert {ask(meter, key).status_code for _ in range(20)} == {401}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), *((method, path) for method, path in ROUTES if path.startswith("/api/"))],
)
def test_the_data_listener_has_none_of_this(meter: Meter, key: str, method: str, path: str) -> None:
    """Metrics and the admin API are not on the listener that clients reach, whatever they present."""
    root = meter.url.removesuffix("/v1")

    for credential in (None, key, meter.admin_token):
        headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
        answer = httpx.request(method, f"{root}{path}", headers=headers, trust_env=False)
        is_error(answer, 404, "not_found")
