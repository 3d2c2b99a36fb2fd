"""The table of outcomes, row by row, as an upstream or a client brings them about."""

import json
from pathlib import Path
from typing import Any

import pytest

from meter.core.events import Outcome, UsageSource
from tests import server, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, event, response, stream
from tests.server import Meter

USAGE = {"prompt_tokens": 9, "completion_tokens": 45, "total_tokens": 54}
WORD = event({"choices": [{"index": 0, "delta": {"content": "word"}}]})
COMPLETION = {"id": "c", "model": "m-1", "choices": [{"message": {"content": "a b c d e f"}}]}


def completion(**members: Any) -> bytes:
    """Write a completion's body."""
    return json.dumps(COMPLETION | members).encode()


def test_finished_without_usage(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """An answer that reports no usage is estimated from the request's text and its own."""
    upstream.answer([response(completion())])

    wire.post(meter.url, key, wire.chat())

    found = meter.event(key)
    assert (found.outcome, found.usage_source) == (Outcome.OK, UsageSource.ESTIMATED)
    assert found.prompt_tokens >= 1
    assert found.completion_tokens >= 6
    assert found.cost is None


@pytest.mark.parametrize(
    ("usage", "source", "tokens"),
    [
        ('{"prompt_tokens":-5,"completion_tokens":-1}', UsageSource.INVALID, None),
        ('{"prompt_tokens":true,"completion_tokens":null}', UsageSource.INVALID, None),
        ('{"prompt_tokens":NaN,"completion_tokens":Infinity}', UsageSource.INVALID, None),
        ('{"prompt_tokens":1e30,"completion_tokens":1e30}', UsageSource.INVALID, None),
        ('{"prompt_tokens":"12","completion_tokens":"3"}', UsageSource.REPORTED, (12, 3)),
        ('{"prompt_tokens":-5,"completion_tokens":3}', UsageSource.REPORTED, (0, 3)),
        ('{"prompt_tokens":10.0,"completion_tokens":2.5}', UsageSource.REPORTED, (10, 3)),
        ("{}", UsageSource.INVALID, None),
        ("[]", UsageSource.ESTIMATED, None),
        ("null", UsageSource.ESTIMATED, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_odd_usage(
    usage: str,
    source: UsageSource,
    tokens: tuple[int, int] | None,
    streamed: bool,
    upstream: FakeUpstream,
    meter: Meter,
    key: str,
) -> None:
    """A usage that cannot be used is kept and the estimate counts; what can be used of one is."""
    body = completion(usage="HERE").replace(b'"HERE"', usage.encode())
    whole = stream(WORD, b"data: " + body + b"\n\n", DONE) if streamed else [response(body)]
    upstream.answer(whole)

    asked = wire.chat(stream=streamed, stream_options={"include_usage": True} if streamed else None)
    answer = wire.post(meter.url, key, asked)

    found = meter.event(key)
    assert answer.whole
    assert found.usage_source is source
    if tokens is not None:
        assert (found.prompt_tokens, found.completion_tokens) == tokens
    else:
        assert min(found.prompt_tokens, found.completion_tokens) >= 1


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "429 Too Many", "500 Oops", "529 Busy"]
)
def test_a_refusal_costs_nothing(status: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The upstream's own errors pass and are recorded, and charge nothing."""
    upstream.answer([response(b'{"error":{"message":"no"}}', status=status)])

    answer = wire.post(meter.url, key, wire.chat())

    found = meter.event(key)
    assert answer.status == found.status == int(status[:3])
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_ERROR, UsageSource.NONE)
    assert (found.total_tokens, found.cost) == (0, 0)


def test_a_refusal_that_reports_usage_is_charged(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """An error that says what it used is charged for it."""
    body = json.dumps({"error": {"message": "no"}, "usage": USAGE}).encode()
    upstream.answer([response(body, status="500 Internal Server Error")])

    wire.post(meter.url, key, wire.chat())

    found = meter.event(key)
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_ERROR, UsageSource.REPORTED)
    assert (found.prompt_tokens, found.completion_tokens) == (9, 45)


def test_a_document_cut_by_the_upstream(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A body that is shorter than announced reaches the client as that, and its text is charged."""
    body = completion(usage=USAGE)
    upstream.answer([response(body)[:-40], Cut()])

    answer = wire.post(meter.url, key, wire.chat())

    found = meter.event(key)
    assert body.startswith(answer.body)
    assert not answer.whole
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_CLOSED, UsageSource.ESTIMATED)
    assert found.completion_tokens >= 6


def test_running_usage_of_a_cut_stream(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A usage that came before the cut is a running count: what was emitted after it is added."""
    running = event({"choices": [{"delta": {"content": "x"}}], "usage": USAGE})
    upstream.answer(stream(WORD, running, WORD, WORD, Cut()))

    wire.post(meter.url, key, wire.chat(stream=True, stream_options={"include_usage": True}))

    found = meter.event(key)
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_CLOSED, UsageSource.ESTIMATED)
    assert (found.prompt_tokens, found.completion_tokens) >= (9, 47)


def test_a_cut_stream_that_had_reported(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A stream cut behind its usage is reported, and still a cut."""
    last = event({"choices": [], "usage": USAGE})
    upstream.answer(stream(WORD, last, Cut()))

    answer = wire.post(meter.url, key, wire.chat(stream=True, stream_options={"include_usage": True}))

    found = meter.event(key)
    assert not answer.whole
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_CLOSED, UsageSource.REPORTED)
    assert (found.prompt_tokens, found.completion_tokens) == (9, 45)


def test_an_upstream_that_stalls(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Silence beyond the idle time-out cuts the stream, and what was emitted is charged."""
    never = Gate()
    upstream.answer(stream(WORD, WORD, never))

    with server.running(tmp_path / "data", upstream_url=upstream.url, idle_timeout_seconds=0.2) as meter:
        answer = wire.post(meter.url, meter.first_key, wire.chat(stream=True))
        found = meter.event(meter.first_key)
    never.open()

    assert answer.body == WORD + WORD
    assert not answer.whole
    assert (found.outcome, found.usage_source) == (Outcome.UPSTREAM_TIMEOUT, UsageSource.ESTIMATED)
    assert found.completion_tokens >= 2


def test_shutdown_lets_streams_finish(upstream: FakeUpstream, tmp_path: Path) -> None:
    """SIGTERM closes the door, and a stream under way runs to its end and into the ledger."""
    gate = Gate()
    upstream.answer(stream(WORD, gate, event({"choices": [], "usage": USAGE}), DONE))
    body = wire.chat(stream=True, stream_options={"include_usage": True})

    with server.running(tmp_path / "data", upstream_url=upstream.url) as meter:
        with wire.connected(meter.url) as connection:
            connection.send(wire.request("POST", "/v1/chat/completions", key=meter.first_key, body=body))
            connection.read_until(b"word")
            meter.process.terminate()
            server.until(lambda: "stopping" in meter.log.read_text(), "the shutdown to begin")
            gate.open()
            answer = wire.parse(connection.read_to_end())
        assert meter.process.wait(wire.SECONDS_MAX) == 0
        found = meter.event(meter.first_key)

    assert answer.whole
    assert (found.outcome, found.completion_tokens) == (Outcome.OK, 45)


def test_nobody_is_refused_while_the_door_closes(upstream: FakeUpstream, tmp_path: Path) -> None:
    """In the delay, requests are served as before on connections that close, and readiness says 503."""
    upstream.answer([response(completion(usage=USAGE))])
    ready = wire.request("GET", "/health/ready")

    with server.running(tmp_path / "data", upstream_url=upstream.url, shutdown_delay_seconds=1) as meter:
        before = server.until(lambda: wire.exchange(meter.url, ready).status == 200, "readiness")
        meter.process.terminate()
        server.until(lambda: wire.exchange(meter.url, ready).status == 503, "the shutdown to begin")
        asked = wire.request("POST", "/v1/chat/completions", key=meter.first_key, body=wire.chat())
        answer = wire.exchange(meter.url, asked.replace(b"Connection: close\r\n", b""))
        assert meter.process.wait(wire.SECONDS_MAX) == 0
        found = meter.event(meter.first_key)

    assert before
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert found.outcome is Outcome.OK


def test_shutdown_cuts_what_does_not_finish(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Past the time-out a stream is cut, settled as interrupted, and meter exits with 0."""
    never = Gate()
    upstream.answer(stream(WORD, WORD, WORD, never))
    settings = {"upstream_url": upstream.url, "shutdown_timeout_seconds": 0.2}

    with server.running(tmp_path / "data", **settings) as meter:
        with wire.connected(meter.url) as connection:
            request = wire.request(
                "POST", "/v1/chat/completions", key=meter.first_key, body=wire.chat(stream=True)
            )
            connection.send(request)
            connection.read_until(b"word")
            meter.process.terminate()
            answer = wire.parse(connection.read_to_end())
        assert meter.process.wait(wire.SECONDS_MAX) == 0
        found = meter.event(meter.first_key)
    never.open()

    assert not answer.whole
    assert (found.outcome, found.usage_source) == (Outcome.INTERRUPTED, UsageSource.ESTIMATED)
    assert found.completion_tokens >= 3


def memory_peak_kib(meter: Meter) -> int:
    """Return the most memory that a meter has held so far."""
    status = Path(f"/proc/{meter.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def test_events_of_ten_megabytes(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Events beyond the bound pass whole, in flat memory; the numbers are estimates that say why."""
    large = event({"choices": [{"delta": {"content": "x" * 10_000_000}}]})
    upstream.answer(stream(WORD, *([large] * 10), event({"choices": [], "usage": USAGE}), DONE))

    with server.running(tmp_path / "data", upstream_url=upstream.url) as meter:
        wire.post(meter.url, meter.first_key, wire.chat())
        before = memory_peak_kib(meter)
        upstream.answer(stream(WORD, *([large] * 10), event({"choices": [], "usage": USAGE}), DONE))
        answer = wire.post(meter.url, meter.first_key, wire.chat(stream=True))
        found = meter.events(meter.first_key, 2)[-1]
        after = memory_peak_kib(meter)

    assert len(answer.body) > 100_000_000
    assert answer.whole
    assert found.usage_source is UsageSource.ESTIMATED
    assert "event_too_large" in found.anomalies
    assert after - before < 64 * 1024


def test_the_settle_precedes_the_last_byte(upstream: FakeUpstream, meter: Meter) -> None:
    """When a client has the whole of an answer with a length, its event is already counted."""
    upstream.answer([response(completion(usage=USAGE))])

    for _ in range(20):
        key = meter.new_key(team="default")
        wire.post(meter.url, key, wire.chat())
        with meter.control as control:
            page = control.get("/metrics").text
        queued = float(page.split("\nmeter_journal_records ")[1].split("\n")[0])
        assert queued + len(meter.events(key, 0)) >= 1
