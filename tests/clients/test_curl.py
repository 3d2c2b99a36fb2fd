"""curl in front of meter: RouterHub's examples with another base URL and another key."""

import gzip
import json
import shutil
import subprocess

import pytest

from tests.clients import routerhub
from tests.clients.routerhub import EXAMPLES, Example, by_answer
from tests.fake_upstream import FakeUpstream, Gate, response, stream
from tests.server import Meter

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")

# Shorter than a gate's patience, so that what waits for the upstream's end fails.
TIMEOUT_SECONDS = 30


def command(meter: Meter, key: str, body: bytes, *options: str) -> list[str]:
    """Write the documentation's command; `--disable` keeps this machine's .curlrc out."""
    request = [
        "-H",
        f"Authorization: Bearer {key}",
        "-H",
        "Content-Type: application/json",
        "-d",
        body.decode(),
    ]
    url = f"{meter.url}/chat/completions"
    return ["curl", "--disable", "-sS", "--max-time", str(TIMEOUT_SECONDS), *options, url, *request]


def curl(meter: Meter, key: str, body: bytes, *options: str, stdin: bytes = b"") -> bytes:
    """Run the command; curl fails where a response is cut or has an error's status."""
    written = command(meter, key, body, "--fail", *options)
    done = subprocess.run(written, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@by_answer
def test_completion(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A completion passes byte for byte in both directions, and is one entry in the ledger."""
    sent = routerhub.written(example.body)
    document = routerhub.completion(example, finish_reason)
    upstream.answer(routerhub.answer(document))

    received = curl(meter, key, sent)

    assert received == json.dumps(document).encode()
    assert json.loads(received) == document
    assert upstream.received[-1].body == sent
    routerhub.check_credentials(upstream.received[-1], key)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, [finish_reason])


@by_answer
def test_stream_without_asking_for_usage(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A stream shows no trace of the usage that meter asked for, and is metered by it all the same."""
    sent = routerhub.written(routerhub.streaming(example, asked=False))
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    received = curl(meter, key, sent, "-N")

    assert received == b"".join(routerhub.events(example, finish_reason, asked=False))
    assert upstream.received[-1].body == routerhub.with_flag(sent)
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@by_answer
def test_stream_with_usage(
    upstream: FakeUpstream, meter: Meter, key: str, example: Example, finish_reason: str
) -> None:
    """A stream whose usage the client asked for passes byte for byte in both directions."""
    sent = routerhub.written(routerhub.streaming(example, asked=True))
    upstream.answer(routerhub.answer_stream(example, finish_reason))

    received = curl(meter, key, sent, "-N")

    assert received == b"".join(routerhub.events(example, finish_reason, asked=True))
    assert upstream.received[-1].body == sent
    routerhub.check_credentials(upstream.received[-1], key)
    entry = routerhub.ledger_entry(example, [finish_reason], streamed=True)
    assert routerhub.entry_of(meter.event(key)) == entry


@pytest.mark.parametrize("asked", [True, False])
def test_stream_comes_as_it_is_made(upstream: FakeUpstream, meter: Meter, key: str, *, asked: bool) -> None:
    """The first chunk is printed while the upstream has yet to write the second."""
    example, gate = EXAMPLES[0], Gate()
    first, *rest = routerhub.events(example, asked=True)
    upstream.answer(stream(first, gate, *rest))
    sent = routerhub.written(routerhub.streaming(example, asked=asked))

    with subprocess.Popen(command(meter, key, sent, "-N"), stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        early = running.stdout.readline()
        gate.open()
        late = running.stdout.read()

    assert running.returncode == 0
    assert early + late == b"".join(routerhub.events(example, asked=asked))
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example, streamed=True)


@pytest.mark.parametrize("options", [(), ("--http1.0",), ("-H", "Transfer-Encoding: chunked")], ids=" ".join)
def test_large_body(upstream: FakeUpstream, meter: Meter, key: str, options: tuple[str, ...]) -> None:
    """A body that curl announces with `Expect: 100-continue`, or sends in chunks, arrives whole."""
    example = EXAMPLES[0]
    message = {"role": "user", "content": "Ça compte. " * 200_000}
    # From a file, `-d` takes line ends out.
    sent = json.dumps(example.body | {"messages": [message]}, ensure_ascii=False).encode()
    upstream.answer(routerhub.answer(routerhub.completion(example)))

    received = curl(meter, key, b"@-", *options, stdin=sent)

    assert json.loads(received) == routerhub.completion(example)
    assert upstream.received[-1].body == sent
    assert upstream.received[-1].header("expect") is None
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example)


def test_compressed_completion(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A compressed answer passes compressed, and is metered all the same."""
    example = EXAMPLES[0]
    document = routerhub.completion(example)
    packed = gzip.compress(json.dumps(document).encode())
    encoding = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    upstream.answer([response(packed, headers=encoding)])

    received = curl(meter, key, routerhub.written(example.body), "--compressed")

    assert json.loads(received) == document
    assert upstream.received[-1].header("accept-encoding") == "deflate, gzip"
    assert upstream.received[-1].sent.endswith(packed)
    assert routerhub.entry_of(meter.event(key)) == routerhub.ledger_entry(example)


def test_wrong_key(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A wrong key is answered with OpenAI's error object, and nothing goes upstream."""
    sent = routerhub.written(EXAMPLES[0].body)
    options = ("-w", "\n%{http_code} %header{www-authenticate}")

    done = subprocess.run(
        command(meter, routerhub.wrong(key), sent, *options), capture_output=True, check=True
    )

    body, _, status = done.stdout.decode().rpartition("\n")
    assert status == "401 Bearer"
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert not upstream.received
    assert meter.events(key, 0) == []
