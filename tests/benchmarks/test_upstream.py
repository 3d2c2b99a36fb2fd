"""The upstream of the measurements answers as OpenAI does, and what reads it misses nothing."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks import streams, upstream
from benchmarks.load import Asked, body, paced_request
from benchmarks.measuring import sent
from benchmarks.processes import free_ports, started
from tests.server import NO_TLS

DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run an upstream."""
    (port,) = free_ports(1)
    log: Path = tmp_path_factory.mktemp("upstream") / "log"
    with started([sys.executable, "-m", "benchmarks.upstream", str(port)], port, log):
        yield port


def _answer(port: int, asked: Asked) -> bytes:
    with httpx.Client(trust_env=False, verify=NO_TLS) as client:
        answer = client.post(f"http://127.0.0.1:{port}/v1/chat/completions", content=body(asked))
        assert answer.status_code == httpx.codes.OK
        return answer.content


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(), upstream.BODY),
        (Asked(stream=True), upstream.EVENT * upstream.EVENTS + upstream.USAGE + DONE),
        (Asked(stream=True, usage=False), upstream.EVENT * upstream.EVENTS + DONE),
    ],
)
def test_it_sends_usage_to_whom_asks_for_it(port: int, asked: Asked, expected: bytes) -> None:
    """An answer has its usage, and a stream has it before its end where it was asked for; each is counted."""
    before = sent(port)

    assert _answer(port, asked) == expected
    assert sent(port) == before + 1


def test_every_event_of_many_paced_streams_is_read(port: int) -> None:
    """Streams that begin at different times come whole, at their pace, and no event before it was sent."""
    count, events, pace_ms = 30, 20, 5

    done = streams.read(port, paced_request("none", pace_ms, events), count)

    assert done.events == count * events
    assert done.failed == 0
    assert 0 < done.p50_us <= done.p99_us


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    """A stream that ends before its end is told apart from one that is whole."""

    def break_off(listener: socket.socket) -> None:
        taken, _ = listener.accept()
        with taken:
            taken.recv(1 << 16)
            taken.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=break_off, args=(listener,))
        thread.start()
        done = streams.read(listener.getsockname()[1], paced_request("none", 1, 3), 1)
        thread.join()

    assert (done.events, done.failed) == (0, 1)
