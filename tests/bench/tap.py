"""What reading requests and answers costs, in CPU: `python -m tests.bench.tap`."""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks import upstream
from meter.core.attempts import Attempt, Ending, conclude
from meter.core.bounds import Ceiling, bound
from meter.core.estimate import count_tokens, estimate_prompt
from meter.core.events import Outcome
from meter.core.observation import Observation
from meter.core.request import read_request
from meter.core.strip import Stripper
from meter.core.tap import Tap

ROUNDS = 200
TRIES = 10
EVENTS = 200
READ_BYTES = 64 * 1024
END = upstream.USAGE + b"data: [DONE]\n\n"
STREAM = upstream.EVENT * EVENTS + END
NULLED = upstream.EVENT.replace(b"}\n\n", b',"usage":null}\n\n')
REQUEST = json.dumps(
    {
        "model": "bench",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that answers in one sentence."},
            {"role": "user", "content": "What does a meter between a caller and a model do?"},
        ],
        "max_tokens": 100,
        "user": "bench",
    }
).encode()
CEILING = Ceiling((), 1000, ())


def document() -> Observation:
    """Read an answer that is no stream."""
    tap = Tap(content_type="application/json", count_tokens=count_tokens)
    tap.feed(upstream.BODY)
    return tap.finish()


def stream(data: bytes, read_bytes: int) -> None:
    """Read a stream that comes in pieces of a size."""
    tap = Tap(content_type="text/event-stream", count_tokens=count_tokens)
    for at in range(0, len(data), read_bytes):
        tap.feed(data[at : at + read_bytes])
    tap.finish()


def strip(event: bytes) -> None:
    """Edit a stream whose events come one by one."""
    stripper = Stripper()
    for _ in range(EVENTS):
        stripper.feed(event)
    stripper.finish()


def request() -> None:
    """Read a small request, estimate it and bound it."""
    facts = read_request(REQUEST)
    estimate_prompt(facts.document)
    bound(facts.document, body_bytes=facts.body_bytes, embeds=False, ceiling=CEILING)


def settling() -> Callable[[], None]:
    """Return what makes an event of an attempt and of what was seen."""
    attempt = Attempt(
        event_id="019ab1c2-0000-7000-8000-000000000000",
        started_at=datetime.now(UTC),
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model="bench",
        stream=False,
        prompt_estimate=40,
    )
    seen = document()

    def settle() -> None:
        conclude(attempt, Ending(outcome=Outcome.OK, status=200, ttfb_ms=1, duration_ms=2), seen)

    return settle


def _us(work: Callable[[], Observation | None]) -> float:
    """Return the time of one round in the quietest of several tries."""
    tries = []
    for _ in range(TRIES):
        began = time.thread_time()
        for _ in range(ROUNDS):
            work()
        tries.append((time.thread_time() - began) / ROUNDS * 1e6)
    return min(tries)


def main() -> None:
    """Measure, and print."""
    once, burst = (
        _us(lambda: stream(upstream.EVENT + END, READ_BYTES)),
        _us(lambda: stream(STREAM, READ_BYTES)),
    )
    paced = _us(lambda: stream(STREAM, len(upstream.EVENT)))
    kept, cut = _us(lambda: strip(upstream.EVENT)), _us(lambda: strip(NULLED))
    for name, us in (
        (f"a JSON answer of {len(upstream.BODY)} bytes", _us(document)),
        ("a stream of one event and its usage", once),
        (f"a stream of {EVENTS} events, all at once", burst),
        ("an event more of a stream, all at once", (burst - once) / (EVENTS - 1)),
        ("an event more of a stream, one by one", (paced - once) / (EVENTS - 1)),
        ("an event in which nothing is taken out", kept / EVENTS),
        ("an event in which usage is taken out", cut / EVENTS),
        (f"a request of {len(REQUEST)} bytes, estimated and bounded", _us(request)),
        ("an event of usage, concluded", _us(settling())),
    ):
        sys.stdout.write(f"{name:<52}{us:8.2f} us\n")


if __name__ == "__main__":
    main()
