"""What the journal costs: CPU a request with many at once, and how long the end of a response waits for it.

python -m tests.bench.journal [--requests N] [--folder DIR]

A request is an intent and a settle, on a real file, and nothing else: no proxy, no shipper. The CPU is that
of the whole process, the kernel's part and the syncing thread's included, less what the same loop takes
without a journal.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import uvloop

from meter.core.attempts import Attempt, Ending, conclude
from meter.core.events import Outcome, UsageEvent
from meter.core.observation import Observation
from meter.core.usage import TokenUsage
from meter.journal.folder import Folder
from meter.journal.journal import Journal
from meter.journal.storage import DISK, Storage

REQUESTS = 20_000
AT_ONCE = 16
ROUNDS = 5
USAGE_RAW = '{"prompt_tokens":1200,"completion_tokens":350,"total_tokens":1550}'

Pair = tuple[Attempt, UsageEvent]


class Books(Protocol):
    """What a request does to a journal."""

    def intent(self, attempt: Attempt, /) -> None:
        """Note that an attempt is about to begin."""

    def settle(self, event: UsageEvent, /) -> Awaitable[None]:
        """Note what came of it."""


class Cost(NamedTuple):
    """What a durability costs."""

    durability: str
    many_us: float
    """CPU a request, with many at once."""
    syncs: float
    """Syncs a request, with many at once."""
    one_us: float
    """CPU a request, with one at a time: each has a sync of its own."""
    wait_ms: float
    """The median of what a settle waits, with one at a time."""


class _Nothing:
    """No journal: what the loop takes by itself."""

    def __init__(self) -> None:
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)

    def intent(self, _attempt: Attempt, /) -> None:
        """Do nothing."""

    def settle(self, _event: UsageEvent, /) -> asyncio.Future[None]:
        """Do nothing."""
        return self._done


class _Counted:
    """The disk, with its syncs counted."""

    def __init__(self) -> None:
        self.syncs = 0
        self.storage: Storage = DISK._replace(sync=self._sync)

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1
        DISK.sync(descriptor)


class _Requests:
    """An attempt and its event, under ever new ids."""

    def __init__(self) -> None:
        self._number = 0
        self._attempt = Attempt(
            event_id="",
            started_at=datetime.now(UTC),
            team_id="team-0123456789",
            key_id="key-0123456789",
            route="chat.completions",
            upstream="routerhub",
            model="anthropic/claude-sonnet-4",
            stream=True,
            prompt_estimate=1200,
        )
        usage = TokenUsage(prompt_tokens=1200, completion_tokens=350)
        seen = Observation(usage=usage, usage_raw=USAGE_RAW, emitted_tokens=350)
        ending = Ending(outcome=Outcome.OK, status=200, ttfb_ms=400, duration_ms=5000)
        self._event = conclude(self._attempt, ending, seen)

    def take(self, count: int) -> list[Pair]:
        """Return some more."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Pair:
        self._number += 1
        event_id = f"019ab1c2-0000-7000-8000-{self._number:012d}"
        replace = msgspec.structs.replace
        return replace(self._attempt, event_id=event_id), replace(self._event, event_id=event_id)


@contextmanager
def _opened(root: Path, disk: _Counted, *, power: bool) -> Iterator[Journal]:
    with tempfile.TemporaryDirectory(dir=root, prefix="meter-bench-") as path:
        journal = Journal(Folder(Path(path)), disk.storage, power=power, bytes_max=1 << 40)
        try:
            yield journal
        finally:
            journal.close()


async def _work_off(books: Books, requests: list[Pair], at_once: int) -> list[float]:
    """Work off all requests; between intent and settle the loop turns, as for I/O. Returns the waits."""
    waits = []

    async def work() -> None:
        while requests:
            attempt, event = requests.pop()
            books.intent(attempt)
            await asyncio.sleep(0)
            began = time.perf_counter()
            await books.settle(event)
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return waits


async def _take(books: Books, requests: list[Pair], at_once: int) -> tuple[float, float]:
    """Return the CPU a request in microseconds, and the median wait in milliseconds."""
    # No server holds so many; the collector would look through all of them again and again.
    gc.freeze()
    count, began = len(requests), time.process_time()
    waits = await _work_off(books, requests, at_once)
    return (time.process_time() - began) / count * 1e6, statistics.median(waits) * 1e3


async def _measure(root: Path, count: int, *, power: bool) -> Cost:
    source, disk = _Requests(), _Counted()
    bare, many = [], []
    for _ in range(ROUNDS):
        bare.append((await _take(_Nothing(), source.take(count), AT_ONCE))[0])
        with _opened(root, disk, power=power) as journal:
            many.append((await _take(journal, source.take(count), AT_ONCE))[0])
    syncs = disk.syncs / count / ROUNDS
    with _opened(root, disk, power=power) as journal:
        one_us, wait_ms = await _take(journal, source.take(count // 10), 1)
    # The best round is the one that the machine's other work disturbed least.
    loop_us = min(bare)
    many_us = min(many) - loop_us
    return Cost("power" if power else "crash", many_us, syncs, one_us - loop_us, wait_ms)


def main() -> None:
    """Measure both durabilities, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.journal", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="Where the files are written.")
    arguments = parser.parse_args()
    sys.stdout.write(f"durability  CPU at {AT_ONCE}  syncs at {AT_ONCE}   CPU at 1  a settle waits at 1\n")
    for power in (False, True):
        cost = uvloop.run(_measure(arguments.folder, arguments.requests, power=power))
        columns = (
            f"{cost.many_us:6.1f} us  {cost.syncs:11.3f}  {cost.one_us:6.1f} us  {cost.wait_ms:13.3f} ms"
        )
        sys.stdout.write(f"{cost.durability:10}  {columns}\n")


if __name__ == "__main__":
    main()
