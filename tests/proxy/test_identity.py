"""The headline: through meter, a client gets what it would have got without it, byte for byte."""

import gzip
import json
import zlib

import pytest

from meter.core.events import Outcome, UsageSource
from tests import wire
from tests.fake_upstream import DONE, FakeUpstream, Gate, Step, event, response, stream
from tests.server import Meter

USAGE = {"prompt_tokens": 14, "completion_tokens": 32, "total_tokens": 46}
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "test-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Zoë 🦊"}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    },
    ensure_ascii=False,
    indent=2,
).encode()
JSON = ("Content-Type", "application/json")
DELTA = event({"id": "1", "model": "test-model", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
LAST = event({"id": "1", "model": "test-model", "choices": [], "usage": USAGE})


def deflated(data: bytes) -> bytes:
    """Compress without the zlib wrapper, as some servers do."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def coded(coding: str, body: bytes) -> list[Step]:
    """Answer with a compressed body."""
    return [response(body, headers=[JSON, ("Content-Encoding", coding)])]


ANSWERS: dict[str, list[Step]] = {
    "json": [response(COMPLETION)],
    "json in chunks": stream(COMPLETION[:50], COMPLETION[50:], headers=[JSON]),
    "json up to the close": [response(COMPLETION, headers=[JSON, ("Connection", "close")], length=False)],
    "sse": stream(DELTA, b": a comment\n\n", DELTA, LAST, DONE),
    "sse, cut anywhere": stream(*(DELTA + LAST + DONE)[:40].split(b"a"), (DELTA + LAST + DONE)[40:]),
    "sse with a length": [response(DELTA + LAST + DONE, headers=[("Content-Type", "text/event-stream")])],
    "gzip": coded("gzip", gzip.compress(COMPLETION)),
    "deflate": coded("deflate", zlib.compress(COMPLETION)),
    "deflate without a wrapper": coded("deflate", deflated(COMPLETION)),
    "br, which nobody asked for": coded("br", b"\x0b\x02\x80hello\x03"),
    "400": [response(b'{"error":{"message":"no"}}', status="400 Bad Request")],
    "429 with headers": [
        response(
            b'{"error":{"message":"slow down"}}',
            status="429 Too Many Requests",
            headers=[JSON, ("Retry-After", "7"), ("x-ratelimit-remaining-tokens", "0")],
        )
    ],
    "502 with html": [
        response(
            b"<html>\r\n<h1>502</h1></html>",
            status="502 Bad Gateway",
            headers=[("Content-Type", "text/html")],
        )
    ],
    "duplicate headers": [
        response(
            COMPLETION,
            headers=[
                JSON,
                ("X-Served-By", "one"),
                ("Vary", "Origin"),
                ("x-served-by", "two"),
                ("Vary", "Accept"),
                ("Set-Cookie", "session=secret"),
                ("Keep-Alive", "timeout=5"),
                ("X-Hop", "this hop only"),
                ("Connection", "X-Hop"),
            ],
        )
    ],
    "empty body": [response(b"", headers=[])],
    "204": [response(status="204 No Content", headers=[], length=False)],
    "redirect": [
        response(b"", status="307 Temporary Redirect", headers=[("Location", "http://169.254.169.254/")])
    ],
    "wrong content type": [response(b"not json at all", headers=[JSON])],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_the_upstreams(name: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Status, ordered headers less those of one hop, and body equal a direct call's, plus one header."""
    upstream.answer(ANSWERS[name])
    body = wire.chat(stream=name.startswith("sse"), stream_options={"include_usage": True})

    direct = wire.post(upstream.url, None, body)
    through = wire.post(meter.url, key, body)

    dropped = {"x-hop"}
    expected = [(header, value) for header, value in direct.end_to_end if header not in dropped]
    added = ("x-meter-request-id", meter.event(key).event_id)
    assert through.status == direct.status
    assert through.end_to_end == [*expected, added]
    assert through.body == direct.body
    assert through.whole


def test_the_request_is_the_clients(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The upstream gets the client's body byte for byte, and its headers less what is meter's business."""
    upstream.answer([response(COMPLETION)])
    body = b' {"messages":[{"content":"\\u00e9\\/","role":"user"}],\n "model" : "test-model", "seed":1.50}\n'
    sent = [
        ("X-Title", "a"),
        ("User-Agent", "mine/1"),
        ("X-Title", "b"),
        ("Accept-Encoding", "gzip, br;q=0.5"),
    ]

    wire.post(meter.url, key, body, headers=[*sent, ("X-Meter-Tags", "blue"), ("Cookie", "a=b")])

    received = upstream.received[-1]
    assert received.body == body
    assert received.target == "/v1/chat/completions"
    assert received.headers == [
        ("host", f"127.0.0.1:{upstream.port}"),
        ("content-type", "application/json"),
        ("x-title", "a"),
        ("user-agent", "mine/1"),
        ("x-title", "b"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer sk-upstream-secret"),
        ("content-length", str(len(body))),
    ]


def test_each_event_arrives_when_it_is_sent(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """The first event reaches the client while the upstream still waits to send the second."""
    gate = Gate()
    upstream.answer(stream(DELTA, gate, LAST, DONE))

    with wire.connected(meter.url) as connection:
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=wire.chat(stream=True)))
        early = connection.read_until(b'"content":"Hi"')
        assert gate.reached.wait(wire.SECONDS_MAX)
        gate.open()
        late = connection.read_until(b"[DONE]")

    assert b"[DONE]" not in early
    assert len(late) > len(early)


@pytest.mark.parametrize(
    "name", ["json", "gzip", "deflate", "deflate without a wrapper", "sse", "sse with a length"]
)
def test_usage_is_read_from_a_copy(name: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Whatever the framing and compression, the event has the usage that the upstream reported."""
    upstream.answer(ANSWERS[name])

    wire.post(
        meter.url, key, wire.chat(stream=name.startswith("sse"), stream_options={"include_usage": True})
    )

    found = meter.event(key)
    assert (found.prompt_tokens, found.completion_tokens) == (14, 32)
    assert (found.outcome, found.usage_source) == (Outcome.OK, UsageSource.REPORTED)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/completions", "/v1/completions"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/v1/chat/completions?api-version=2", "/v1/chat/completions?api-version=2"),
    ],
)
def test_every_metered_route(path: str, target: str, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Each metered route is forwarded to its own path, query and all, and makes one event."""
    upstream.answer([response(COMPLETION)])

    answer = wire.post(meter.url, key, wire.chat(input="x"), path=path)

    assert answer.status == 200
    assert upstream.received[-1].target == target
    assert meter.event(key).route == path[4:].split("?", maxsplit=1)[0].replace("/", ".")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/gpt-4.1", "/v1/models/gpt-4.1"),
        ("/v1/models/anthropic/claude-sonnet-4", "/v1/models/anthropic/claude-sonnet-4"),
        ("/v1/models/anthropic%2Fclaude-sonnet-4", "/v1/models/anthropic%2Fclaude-sonnet-4"),
    ],
)
def test_models_are_forwarded_and_not_metered(
    path: str, target: str, upstream: FakeUpstream, meter: Meter, key: str
) -> None:
    """The models' routes pass both ways and leave no event."""
    upstream.answer([response(b'{"object":"list","data":[]}')])

    answer = wire.exchange(meter.url, wire.request("GET", path, key=key))

    assert (answer.status, answer.json()) == (200, {"object": "list", "data": []})
    assert upstream.received[-1].target == target
    assert meter.events(key, 0) == []


def test_no_provider_learns_a_clients_address(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """What a load balancer in front says of whom it speaks for is for meter, and goes no further."""
    upstream.answer([response(b"{}")])

    wire.post(meter.url, key, wire.chat(), headers=[("X-Forwarded-For", "203.0.113.7"), ("X-Other", "kept")])

    sent = "\n".join(f"{name}: {value}" for name, value in upstream.received[-1].headers).lower()
    assert "203.0.113.7" not in sent
    assert "x-other: kept" in sent
