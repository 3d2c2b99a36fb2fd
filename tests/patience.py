"""Bounds on how long something takes that a machine's pauses don't break.

Time is counted in ticks of whoever waits: a machine that stalls for ten seconds costs one tick, while
something that truly takes as long costs a hundred.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

TICK_SECONDS = 0.1

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do some work in a thread, and return what it returns or raises, which must not take longer."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as fault:  # noqa: BLE001 (it is raised where the work was asked for)
            future.set_exception(fault)

    done = threading.Event()
    future.add_done_callback(lambda _future: done.set())
    threading.Thread(target=run, daemon=True).start()
    assert any(done.wait(TICK_SECONDS) for _ in range(_ticks(seconds))), f"it takes longer than {seconds} s"
    return future.result()


async def soon(seconds: float, awaitable: Awaitable[T]) -> T:
    """Return what comes of something, which must not take longer."""
    asking = asyncio.ensure_future(awaitable)
    for _ in range(_ticks(seconds)):
        done, _ = await asyncio.wait([asking], timeout=TICK_SECONDS)
        if done:
            return await asking
    asking.cancel()
    raise AssertionError(f"it takes longer than {seconds} s")


def _ticks(seconds: float) -> int:
    return round(seconds / TICK_SECONDS)
