"""What meter refuses: clearly, in OpenAI's shape, with nothing forwarded and nothing charged."""

import json

import pytest

from meter.core.events import Outcome, UsageSource
from tests import server, wire
from tests.fake_upstream import FakeUpstream, Gate, response
from tests.server import Meter

OK = [response(b'{"choices":[]}')]


def test_every_bad_credential_gets_the_same_answer(upstream: FakeUpstream, meter: Meter) -> None:
    """No key, a malformed one, a wrong, a revoked and an expired one cannot be told apart."""
    upstream.answer(OK)
    revoked = meter.new_key(name="to-be-revoked")
    with meter.control as control:
        control.delete(f"/api/v1/keys/{revoked.split('_')[1]}")
    wrong = revoked[:-1] + ("0" if revoked[-1] != "0" else "1")
    credentials = [None, "", "sk-1234", "mtr_", wrong, revoked, revoked + "0", "é" * 60]

    answers = [wire.post(meter.url, credential, wire.chat()) for credential in credentials]

    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].error["code"] == "invalid_api_key"
    assert upstream.received == []


def test_an_expired_key_is_refused(upstream: FakeUpstream, meter: Meter) -> None:
    """A key works until its last instant, and then gets the answer that a wrong one gets."""
    upstream.answer(OK)
    made = meter.run("keys", "create", "--team", "default", "--expires", "1m", "--json")
    key = json.loads(made.stdout)["key"]
    with meter.database.write() as connection:
        moved = "UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?"
        connection.exec_driver_sql(moved, (key.split("_")[1],))

    answer = wire.post(meter.url, key, wire.chat())

    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert upstream.received == []


BODIES: dict[str, tuple[bytes, int, str | None]] = {
    "nothing": (b"", 400, None),
    "not json": (b"hello", 400, None),
    "half json": (b'{"model":"m"', 400, None),
    "two documents": (b'{"model":"m"}{"model":"n"}', 400, None),
    "a list": (b'[{"model":"m"}]', 400, None),
    "no model": (b'{"messages":[]}', 400, "model"),
    "model in another case": (b'{"Model":"m"}', 400, "model"),
    "model no string": (b'{"model":7}', 400, "model"),
    "model twice": (b'{"model":"cheap","messages":[],"model":"dear"}', 400, None),
    "model twice, escaped": (b'{"model":"cheap","mod\\u0065l":"dear"}', 400, None),
    "model twice, by case": (b'{"model":"cheap","MODEL":"dear"}', 400, None),
    "stream no boolean": (b'{"model":"m","stream":"yes"}', 400, "stream"),
    "stream options no object": (b'{"model":"m","stream_options":[]}', 400, "stream_options"),
    "utf-16": ('{"model":"m"}'.encode("utf-16"), 400, None),
    "byte order mark": (b'\xef\xbb\xbf{"model":"m"}', 400, None),
    "nan": (b'{"model":"m","top_p":NaN}', 400, None),
    "deep": (b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
    "long number": (b'{"model":"m","x":' + b"9" * 5000 + b"}", 400, None),
    "too large": (b'{"model":"m","x":"' + b"y" * 20_000_000 + b'"}', 413, None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_metered_is_refused(
    name: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """The error names the member at fault, and neither the upstream nor the ledger hears of it."""
    upstream.answer(OK)
    body, status, param = BODIES[name]

    answer = wire.post(meter.url, key, body)

    assert (answer.status, answer.error["param"]) == (status, param)
    assert answer.error["type"] == "invalid_request_error"
    assert upstream.received == []
    assert meter.events(key, 0) == []


def test_a_body_that_grows_past_the_limit_is_refused(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Chunks without an announced length are counted as they come, and the connection is closed."""
    upstream.answer(OK)
    head = wire.request("POST", "/v1/chat/completions", key=key, headers=[("Transfer-Encoding", "chunked")])
    megabyte = b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"

    with wire.connected(meter.url) as connection:
        connection.send(head)
        try:
            for _ in range(25):
                connection.send(megabyte)
        except ConnectionError:
            pass  # The server need not read on once it has answered.
        answer = wire.parse(connection.read_to_end())

    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert upstream.received == []


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer other")],
        [("x-api-key", "other")],
        [("api-key", "other")],
        [("x-goog-api-key", "other")],
    ],
)
def test_two_credentials_are_refused(
    headers: list[tuple[str, str]], upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """A second credential, which could identify somebody else upstream, is a bad request."""
    upstream.answer(OK)

    answer = wire.post(meter.url, key, wire.chat(), headers=headers)

    assert answer.status == 400
    assert upstream.received == []


@pytest.mark.parametrize("parameter", ["key", "api_key", "access_token"])
def test_a_key_in_the_url_is_refused(parameter: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Keys in URLs end up in logs, so they are not accepted there."""
    upstream.answer(OK)

    answer = wire.post(meter.url, key, wire.chat(), path=f"/v1/chat/completions?{parameter}={key}")

    assert answer.status == 400
    assert upstream.received == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat/%63ompletions",
        "/V1/chat/completions",
        "/v1/responses",
        "/v1/files",
        "/v1/models/../admin",
        "/v1/models/..%2F..%2Fadmin",
        "/v1/models/%2e%2e/chat",
        "/v1/models/a%00b",
        "/v1/models/a\\b",
        "/v1/models/",
        "/metrics",
        "/api/v1/keys",
        "/schema",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_any_other_path_is_not_found(
    method: str, path: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """What is no row of the table is 404, however it is written."""
    upstream.answer(OK)

    answer = wire.exchange(meter.url, wire.request(method, path, key=key, body=wire.chat()))

    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert upstream.received == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("PUT", "/v1/embeddings")],
)
def test_another_method_is_not_allowed(method: str, path: str, meter: Meter, key: str) -> None:
    """A known path under another method says which one to use."""
    answer = wire.exchange(meter.url, wire.request(method, path, key=key))

    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")


def test_a_compressed_request_is_refused(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A body that meter does not unpack is 415, before anything is read of it."""
    upstream.answer(OK)

    answer = wire.post(meter.url, key, b"\x1f\x8b", headers=[("Content-Encoding", "gzip")])

    assert answer.status == 415
    assert upstream.received == []


def test_an_unreachable_upstream_is_recorded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nobody listens upstream: 502, and an event that says so and costs nothing."""
    data_dir = tmp_path_factory.mktemp("unreachable") / "data"
    with server.running(data_dir, upstream_url="http://127.0.0.1:9/v1") as meter:
        key = meter.first_key
        answer = wire.post(meter.url, key, wire.chat())
        event = meter.event(key)

    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert (event.outcome, event.usage_source) == (Outcome.UNREACHABLE, UsageSource.NONE)
    assert (event.total_tokens, event.cost, event.status) == (0, 0, None)


def test_an_upstream_that_never_answers_times_out(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No headers in time: 504, and an event that says the upstream was not reached."""
    data_dir = tmp_path_factory.mktemp("silent") / "data"
    gate = Gate()
    upstream.answer([gate])
    with server.running(data_dir, upstream_url=upstream.url, headers_timeout_seconds=0.2) as meter:
        key = meter.first_key
        answer = wire.post(meter.url, key, wire.chat())
        event = meter.event(key)
    gate.open()

    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert (event.outcome, event.usage_source) == (Outcome.UNREACHABLE, UsageSource.NONE)
