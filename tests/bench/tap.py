"""What reading the usage of an answer costs, in CPU: `python -m tests.bench.tap`."""

import sys
import time
from collections.abc import Callable

from benchmarks import upstream
from meter.core.estimate import count_tokens
from meter.core.tap import Tap

ROUNDS = 200
EVENTS = 200
READ_BYTES = 64 * 1024
STREAM = upstream.EVENT * EVENTS + upstream.USAGE + b"data: [DONE]\n\n"


def document() -> None:
    """Read an answer that is no stream."""
    tap = Tap(content_type="application/json", count_tokens=count_tokens)
    tap.feed(upstream.BODY)
    tap.finish()


def stream(read_bytes: int) -> None:
    """Read a stream that comes in pieces of a size."""
    tap = Tap(content_type="text/event-stream", count_tokens=count_tokens)
    for at in range(0, len(STREAM), read_bytes):
        tap.feed(STREAM[at : at + read_bytes])
    tap.finish()


def _us(work: Callable[[], None]) -> float:
    began = time.thread_time()
    for _ in range(ROUNDS):
        work()
    return (time.thread_time() - began) / ROUNDS * 1e6


def main() -> None:
    """Measure, and print."""
    burst, paced = (_us(lambda size=size: stream(size)) for size in (READ_BYTES, len(upstream.EVENT)))  # type: ignore[misc]
    sys.stdout.write(f"a JSON answer of {len(upstream.BODY)} bytes  {_us(document):6.1f} us\n")
    sys.stdout.write(f"an event of a stream, all at once  {burst / EVENTS:6.2f} us\n")
    sys.stdout.write(f"an event of a stream, one by one   {paced / EVENTS:6.2f} us\n")


if __name__ == "__main__":
    main()
