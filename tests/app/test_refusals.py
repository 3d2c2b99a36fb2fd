"""Refusals in memory: counted by key and reason, and written down also at the end."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from meter.app.refusals import Refusals
from meter.core.clock import Clock
from meter.core.errors import ModelNotAllowed, NotFound, UpstreamUnreachable
from meter.core.keys import Grant
from meter.core.refusals import Refused
from meter.store.failures import DatabaseUnavailable

NOON = datetime(2026, 11, 23, 12, 34, tzinfo=UTC)
CLOCK = Clock(now=lambda: NOON, monotonic=lambda: 0.0)
GRANT = Grant(key_id="k", key_name="key", team_id="t", team_name="team")
REFUSED = Refused(NOON.replace(minute=0), "k", "model_not_allowed")


def refuse(refusals: Refusals) -> None:
    """Refuse a model to a key."""
    refusals.count(ModelNotAllowed("No.", param="model"), GRANT)


def test_only_what_meter_refuses_to_a_key_is_counted() -> None:
    """Upstreams that are not reached make events, and who has no key has no count."""
    written: list[Mapping[Refused, int]] = []
    refusals = Refusals(CLOCK, written.append)

    refuse(refusals)
    refuse(refusals)
    refusals.count(UpstreamUnreachable("Away."), GRANT)
    refusals.count(NotFound("Nowhere."), None)
    refusals.flush()
    refusals.flush()

    assert written == [{REFUSED: 2}]


def test_counts_wait_for_a_database_that_is_away() -> None:
    """What could not be written is written with what came later."""
    written: list[Mapping[Refused, int]] = []
    away = True

    def add(counts: Mapping[Refused, int]) -> None:
        if away:
            raise DatabaseUnavailable("away")
        written.append(counts)

    refusals = Refusals(CLOCK, add)
    refuse(refusals)
    refusals.flush()
    away = False
    refuse(refusals)
    refusals.flush()

    assert written == [{REFUSED: 2}]


def test_the_last_counts_are_written_in_a_thread() -> None:
    """At the end they are written, and the loop goes on meanwhile."""
    written: list[Mapping[Refused, int]] = []

    async def ending() -> None:
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def add(counts: Mapping[Refused, int]) -> None:
            loop.call_soon_threadsafe(begun.set)
            # It waits for what only a loop that runs will do.
            assert go_on.wait(20)
            written.append(counts)

        refusals = Refusals(CLOCK, add)
        keeping = asyncio.create_task(refusals.keep_flushed())
        await asyncio.sleep(0)
        refuse(refusals)
        keeping.cancel()
        await begun.wait()
        go_on.set()
        await asyncio.wait([keeping])

    asyncio.run(ending())

    assert written == [{REFUSED: 1}]


def test_a_database_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waits a moment for the last counts, and not for ever."""
    monkeypatch.setattr("meter.app.refusals.LAST_FLUSH_SECONDS_MAX", 0.01)
    go_on = threading.Event()

    def hang(_counts: Mapping[Refused, int]) -> None:
        go_on.wait(20)

    async def ending() -> bool:
        refusals = Refusals(CLOCK, hang)
        keeping = asyncio.create_task(refusals.keep_flushed())
        await asyncio.sleep(0)
        refuse(refusals)
        keeping.cancel()
        await asyncio.wait([keeping])
        hangs = not go_on.is_set()
        go_on.set()
        return hangs and keeping.cancelled()

    assert asyncio.run(ending())
