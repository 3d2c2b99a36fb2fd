"""Counters in Redis, which servers share. Its libraries are large: only who has a Redis imports this."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from limits.aio.storage import RedisStorage
from redis import RedisError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from meter.core.rates import WINDOW_SECONDS, Asked, Counters, Rate, Standing, weigh
from meter.rates import CountersAwayError

REDIS_SECONDS_MAX = 0.5
# A process that starts has much to do.
OPENING_SECONDS_MAX = 3.0
# How long Redis stays unasked after it did not answer.
PROBE_SECONDS = 1.0
CONNECTIONS_MAX = 50
# Corrections of this many rates wait at most; they are sums, so that a busy rate is one of them.
OWED_MAX = 10_000
# Corrections are added whether or not there is room.
UNLIMITED = 2**53
PREFIX = "meter:rates"

log = logging.getLogger(__name__)


async def redis_version(url: str) -> str:
    """Ask a Redis for its version; raises `CountersAwayError`, whose text has no password in it."""
    client = Redis.from_url(
        url, socket_connect_timeout=OPENING_SECONDS_MAX, socket_timeout=OPENING_SECONDS_MAX
    )
    try:
        told = await client.info("server")
    except (RedisError, OSError) as fault:
        raise CountersAwayError(str(fault) or type(fault).__name__) from fault
    finally:
        await client.aclose()
    return str(told["redis_version"])


class SharedCounters:
    """Counters in Redis, by `limits`' sliding window: two numbers for a rate, by the clock of Redis."""

    def __init__(self, url: str) -> None:
        self._connections = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=REDIS_SECONDS_MAX,
            socket_connect_timeout=OPENING_SECONDS_MAX,
            # A connection that Redis has closed meanwhile is made anew, once.
            retry=Retry(NoBackoff(), 1),
        )
        options: dict[str, Any] = {"connection_pool": self._connections, "implementation": "redispy"}
        self._storage = RedisStorage(f"async+{url}", key_prefix=PREFIX, **options)
        self._here = False
        self._told: bool | None = None
        """What the log says; one answer that did not come in time is asked for again before it is told."""
        self._owed: dict[str, int] = {}
        self._woken = asyncio.Event()

    @property
    def here(self) -> bool:
        """Whether Redis answered when it was asked last."""
        return self._here

    async def take(self, asked: Sequence[Asked]) -> Asked | None:
        """Count all of this, or none and return the first that has no room; raises `CountersAwayError`."""
        for position, (rate, amount) in enumerate(asked):
            if not await self._add(rate.name, amount, rate.limit):
                for earlier in asked[:position]:
                    self.owe(earlier.rate.name, -earlier.amount)
                return asked[position]
        return None

    async def open(self) -> None:
        """Look for Redis before anything is counted, so that no server begins for itself."""
        await self._look(OPENING_SECONDS_MAX)

    async def standing(self, asked: Asked, seconds_max: float = REDIS_SECONDS_MAX) -> Standing:
        """Say how a rate stands; raises `CountersAwayError`."""
        try:
            async with asyncio.timeout(seconds_max):
                found = await self._storage.get_sliding_window(asked.rate.name, WINDOW_SECONDS)
        except Exception as fault:
            # Whatever a client of Redis raises, no request may fail for it.
            raise self._lost(fault) from fault
        return weigh(Counters(*found), asked.amount, asked.rate.limit)

    def owe(self, name: str, amount: int) -> None:
        """Correct a counter soon; while Redis is away there is nothing to correct."""
        if self._told and (name in self._owed or len(self._owed) < OWED_MAX):
            self._owed[name] = self._owed.get(name, 0) + amount
            self._woken.set()

    async def run(self) -> None:
        """Look for Redis while it is away, and write corrections, until cancelled."""
        try:
            while True:
                await (self._pay() if self._here else self._look())
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._woken.wait()
                self._woken.clear()
        finally:
            await self._connections.disconnect()

    async def _look(self, seconds_max: float = REDIS_SECONDS_MAX) -> None:
        try:
            await self.standing(Asked(Rate("key", "none", "requests", 1), 0), seconds_max)
        except CountersAwayError as fault:
            self._owed.clear()
            self._woken.clear()
            if self._told is not False:
                log.warning("Redis is away, and rates are counted by each process for itself: %s", fault)
            self._told = False
        else:
            self._here = True
            if not self._told:
                log.info("rates are counted in Redis, together with other servers")
            self._told = True

    async def _pay(self) -> None:
        with suppress(CountersAwayError):
            while self._owed:
                name = next(iter(self._owed))
                await self._add(name, self._owed.pop(name), UNLIMITED)

    async def _add(self, name: str, amount: int, limit: int) -> bool:
        try:
            async with asyncio.timeout(REDIS_SECONDS_MAX):
                return await self._storage.acquire_sliding_window_entry(name, limit, WINDOW_SECONDS, amount)
        except Exception as fault:
            # Whatever a client of Redis raises, no request may fail for it.
            raise self._lost(fault) from fault

    def _lost(self, fault: Exception) -> CountersAwayError:
        """Ask Redis nothing more until it has answered; it is looked for at once."""
        self._here = False
        self._woken.set()
        return CountersAwayError(str(fault) or type(fault).__name__)
