"""Rates: requests and tokens a minute, counted in memory, and in Redis where several servers share them.

The memory counts always. While Redis answers, it decides; while it does not, the memory does, with what this
process has let pass. Who asks never waits for Redis longer than `REDIS_SECONDS_MAX`, and nobody at all while
it is known to be away.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from limits.aio.storage import RedisStorage
from redis import RedisError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from meter.core.clock import Clock
from meter.core.rates import WINDOW_SECONDS, Asked, Counters, Entry, Rate, Standing, Windows, refusal, weigh

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
    """Ask a Redis for its version; raises `RedisAwayError`, whose text has no password in it."""
    client = Redis.from_url(
        url, socket_connect_timeout=OPENING_SECONDS_MAX, socket_timeout=OPENING_SECONDS_MAX
    )
    try:
        told = await client.info("server")
    except (RedisError, OSError) as fault:
        raise RedisAwayError(str(fault) or type(fault).__name__) from fault
    finally:
        await client.aclose()
    return str(told["redis_version"])


class RedisAwayError(Exception):
    """Redis gave no answer in time."""


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
        """Count all of this, or none of it and return the first that has no room; raises `RedisAwayError`."""
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
        """Say how a rate stands; raises `RedisAwayError`."""
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
        except RedisAwayError as fault:
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
        with suppress(RedisAwayError):
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

    def _lost(self, fault: Exception) -> RedisAwayError:
        """Ask Redis nothing more until it has answered; it is looked for at once."""
        self._here = False
        self._woken.set()
        return RedisAwayError(str(fault) or type(fault).__name__)


class Taken:
    """What an attempt has taken of its rates."""

    def __init__(self, asked: Sequence[Asked], entries: Sequence[Entry], correct: "Correct") -> None:
        self._taken = list(zip(asked, entries, strict=True))
        self._correct = correct

    def settle(self, tokens: int) -> None:
        """Count the tokens that were used instead of those that were asked for."""
        for asked, entry in self._taken:
            if asked.rate.measure == "tokens":
                self._correct(asked.rate, tokens - asked.amount, entry)
        self._taken.clear()

    def give_back(self) -> None:
        """Count none of it, unless it was settled: the attempt never began."""
        for asked, entry in self._taken:
            self._correct(asked.rate, -asked.amount, entry)
        self._taken.clear()


Correct = Callable[[Rate, int, Entry], None]


class Rates:
    """Admits what its rates have room for."""

    def __init__(self, *, clock: Clock, shared: SharedCounters | None) -> None:
        self._clock = clock
        self._shared = shared
        self._windows = Windows()

    async def take(self, asked: Sequence[Asked]) -> Taken:
        """Count all of this, or none of it and raise `RateLimitExceeded`."""
        shared = self._shared
        if shared is None or not shared.here:
            refused = self._windows.refused(asked, self._clock.monotonic())
        else:
            try:
                refused = await shared.take(asked)
            except RedisAwayError:
                refused = self._windows.refused(asked, self._clock.monotonic())
        if refused is not None:
            beside = [each for each in asked if each.rate.owner == refused.rate.owner]
            standings = {each.rate: await self.standing(each) for each in beside}
            raise refusal(refused, standings)
        now = self._clock.monotonic()
        entries = [self._windows.add(rate, amount, now) for rate, amount in asked]
        return Taken(asked, entries, self._put_right)

    async def standing(self, asked: Asked) -> Standing:
        """Say how a rate stands, and when so much will fit."""
        if self._shared is not None and self._shared.here:
            with suppress(RedisAwayError):
                return await self._shared.standing(asked)
        return self._windows.standing(asked, self._clock.monotonic())

    def _put_right(self, rate: Rate, amount: int, entry: Entry) -> None:
        now = self._clock.monotonic()
        if amount > 0:
            self._windows.add(rate, amount, now)
        elif amount < 0:
            self._windows.take_back(Asked(rate, -amount), entry, now)
        if amount and self._shared is not None:
            self._shared.owe(rate.name, amount)
