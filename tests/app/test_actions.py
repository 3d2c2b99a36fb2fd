"""Ids are drawn by the block and are of one request each, whatever threads and forks there are."""

import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from meter.app.actions import Randomness, new_event_id

IDS = 5_000
THREADS = 8
# What a forked process mints next, beside what its parent does.
FORKING = """
import os
from meter.app.actions import new_event_id
new_event_id()
reader, writer = os.pipe()
if os.fork():
    os.close(writer)
    print(new_event_id(), os.read(reader, 100).decode())
else:
    os.write(writer, new_event_id().encode())
    os._exit(0)
"""


def _random_bits(event_id: str) -> int:
    return uuid.UUID(event_id).int & (2**62 - 1)


def test_ids_of_several_blocks_are_in_order_and_differ() -> None:
    """Ids carry the time at which they were minted, in whole milliseconds, and no randomness twice."""
    before = time.time_ns() // 1_000_000
    ids = [new_event_id() for _ in range(IDS)]
    after = time.time_ns() // 1_000_000

    times = [uuid.UUID(event_id).int >> 80 for event_id in ids]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert {uuid.UUID(event_id).version for event_id in ids} == {7}
    assert len({_random_bits(event_id) for event_id in ids}) == IDS


def test_threads_never_get_the_same() -> None:
    """Threads that draw from one block at once each get pieces of their own."""
    randomness = Randomness()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            drawn = list(pool.map(lambda _: [randomness.take() for _ in range(IDS)], range(THREADS)))
    finally:
        sys.setswitchinterval(interval)

    assert len({piece for pieces in drawn for piece in pieces}) == THREADS * IDS
    assert {len(piece) for pieces in drawn for piece in pieces} == {10}


def test_a_fork_draws_its_own() -> None:
    """A process that is forked does not mint the ids that its parent mints."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True, env=os.environ
    )

    parents, childs = ran.stdout.split()
    assert _random_bits(parents) != _random_bits(childs)
