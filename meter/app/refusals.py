"""Refusals by key and reason, counted in memory and added to the database every second; some may be lost.

They are no events: a client that asks again and again would fill the journal with nothing.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from meter.core.clock import Clock
from meter.core.errors import MeterError, UpstreamTimeout, UpstreamUnreachable
from meter.core.keys import Grant
from meter.core.refusals import Refused, hour_of
from meter.store.failures import DatabaseUnavailable

FLUSH_SECONDS = 1.0
LAST_FLUSH_SECONDS_MAX = 2.0

log = logging.getLogger(__name__)


class Refusals:
    """Counts; there are no more of them than keys times reasons, and hours that the database was away."""

    def __init__(self, clock: Clock, add: Callable[[Mapping[Refused, int]], None]) -> None:
        self._clock = clock
        self._add = add
        self._counts: Counter[Refused] = Counter()

    def count(self, refusal: MeterError, grant: Grant | None) -> None:
        """Count a refusal of a known key; what an upstream did is an event, and no refusal."""
        if grant is not None and not isinstance(refusal, UpstreamTimeout | UpstreamUnreachable):
            self._counts[Refused(hour_of(self._clock.now()), grant.key_id, refusal.code)] += 1

    async def keep_flushed(self) -> None:
        """Add what was counted to the database, again and again; also when cancelled, one last time.

        That one takes a moment at most: who stops must not wait for a database that hangs.
        """
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await asyncio.to_thread(self.flush)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSH_SECONDS_MAX):
                    await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Add what was counted to the database; while it is away, that waits."""
        counted, self._counts = self._counts, Counter()
        if not counted:
            return
        try:
            self._add(counted)
        except DatabaseUnavailable as fault:
            log.info("refusals cannot be written down now: %s", fault)
            self._counts += counted
