"""Rates in memory and in a real Redis: exact together, and never in the way when Redis goes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from meter.core.clock import Clock
from meter.core.errors import RateLimitExceeded
from meter.core.rates import Asked, Rate
from meter.rates import Rates
from meter.rates.shared import REDIS_SECONDS_MAX, SharedCounters
from tests import services
from tests.patience import soon
from tests.services import RedisServer

REQUESTS = Rate("key", "k", "requests", 10)
TOKENS = Rate("key", "k", "tokens", 1000)
OTHERS = REQUESTS._replace(owner_id="another")
LATER = REQUESTS._replace(owner_id="later", limit=10**6)
WAIT_SECONDS_MAX = 20.0
# A loaded machine may be late; what hangs would take far longer.
LATE_SECONDS_MAX = 2.0


class Scene:
    """Rates in memory, with a clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        clock = Clock(now=lambda: datetime(2026, 11, 25, tzinfo=UTC), monotonic=lambda: self.seconds)
        self.rates = Rates(clock=clock, shared=None)

    def take(self, *asked: Asked) -> bool:
        """Take what has room."""
        return asyncio.run(admits(self.rates, *asked))

    def used(self, rate: Rate) -> int:
        """Say how much of a rate is used."""
        return asyncio.run(self.rates.standing(Asked(rate, 0))).used


async def admits(rates: Rates, *asked: Asked) -> bool:
    """Say whether rates admit this."""
    try:
        await rates.take(asked)
    except RateLimitExceeded:
        return False
    return True


def test_all_rates_admit_or_none_counts() -> None:
    """What one rate refuses is not counted in the others, so that trying again costs nothing."""
    scene = Scene()
    assert scene.take(Asked(REQUESTS, 1), Asked(TOKENS, 900))

    tried = [scene.take(Asked(REQUESTS, 1), Asked(TOKENS, 200)) for _ in range(20)]

    assert not any(tried)
    assert (scene.used(REQUESTS), scene.used(TOKENS)) == (1, 900)


def test_used_tokens_take_the_place_of_estimated_ones() -> None:
    """More is added when it is known, less is given back, and requests stay counted."""
    scene = Scene()

    async def run() -> None:
        more = await scene.rates.take([Asked(REQUESTS, 1), Asked(TOKENS, 100)])
        less = await scene.rates.take([Asked(REQUESTS, 1), Asked(TOKENS, 100)])
        more.settle(700)
        less.settle(0)
        less.settle(50)
        less.give_back()

    asyncio.run(run())

    assert (scene.used(REQUESTS), scene.used(TOKENS)) == (2, 700)


def test_what_never_began_is_given_back() -> None:
    """An attempt that a later check refused counts in no rate."""
    scene = Scene()

    async def run() -> None:
        taken = await scene.rates.take([Asked(REQUESTS, 1), Asked(TOKENS, 100)])
        taken.give_back()
        taken.give_back()

    asyncio.run(run())

    assert (scene.used(REQUESTS), scene.used(TOKENS)) == (0, 0)


def test_a_limit_that_changes_keeps_what_is_counted() -> None:
    """A higher limit has more room at once, and a lower one less."""
    scene = Scene()
    for _ in range(10):
        assert scene.take(Asked(REQUESTS, 1))

    assert not scene.take(Asked(REQUESTS, 1))
    assert scene.take(Asked(REQUESTS._replace(limit=11), 1))
    assert not scene.take(Asked(REQUESTS._replace(limit=5), 1))
    scene.seconds = 60.0
    assert scene.take(Asked(REQUESTS._replace(limit=5), 1))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this test's own, running."""
    with services.redis_server() as server:
        server.start()
        yield server


@asynccontextmanager
async def sharing(server: RedisServer) -> AsyncIterator[tuple[Rates, SharedCounters]]:
    """Count in a Redis, as one server does."""
    shared = SharedCounters(server.url)
    await shared.open()
    clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    running = asyncio.create_task(shared.run())
    try:
        yield Rates(clock=clock, shared=shared), shared
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not await look():  # noqa: ASYNC110 (what is waited for is in another process)
            await asyncio.sleep(0.01)


async def here(shared: SharedCounters) -> bool:
    """Say whether Redis answers."""
    return shared.here


async def quick(rates: Rates, *asked: Asked) -> bool:
    """Say whether rates admit this, which must not take long, whatever Redis does."""
    return await soon(REDIS_SECONDS_MAX + LATE_SECONDS_MAX, admits(rates, *asked))


def at_once(rates: Rates, *asked: Asked) -> bool:
    """Say whether rates admit this, which must wait for nothing at all."""
    admission = admits(rates, *asked)
    try:
        admission.send(None)
    except StopIteration as ended:
        return bool(ended.value)
    admission.close()
    raise AssertionError("it waits")


def test_servers_count_together(redis: RedisServer) -> None:
    """Of many requests at several servers, as many pass as the limit says, and refusals count nowhere."""

    async def run() -> tuple[list[bool], int, int]:
        async with sharing(redis) as (one, _), sharing(redis) as (two, _):
            asked = (Asked(TOKENS, 10), Asked(REQUESTS, 1))
            tried = await asyncio.gather(*(admits((one, two)[each % 2], *asked) for each in range(40)))
            await until(lambda: settled(one, 100))
            requests = await two.standing(Asked(REQUESTS, 0))
            tokens = await two.standing(Asked(TOKENS, 0))
            return tried, requests.used, tokens.used

    async def settled(rates: Rates, tokens: int) -> bool:
        return (await rates.standing(Asked(TOKENS, 0))).used == tokens

    tried, requests, tokens = asyncio.run(run())

    assert sum(tried) == 10
    assert (requests, tokens) == (10, 100)


def test_tokens_are_settled_in_redis(redis: RedisServer) -> None:
    """What was used beyond the estimate counts at the other servers, and a refusal there says when."""

    async def run() -> RateLimitExceeded:
        async with sharing(redis) as (one, _), sharing(redis) as (two, _):
            (await one.take([Asked(TOKENS, 100)])).settle(1500)
            await until(lambda: refused(two))
            with pytest.raises(RateLimitExceeded) as told:
                await two.take([Asked(TOKENS, 1)])
            return told.value

    async def refused(rates: Rates) -> bool:
        return (await rates.standing(Asked(TOKENS, 1))).used == 1500

    told = dict(asyncio.run(run()).headers)

    assert told["x-ratelimit-remaining-tokens"] == "0"
    assert 60 < int(told["retry-after"]) <= 120


def test_redis_that_is_not_there_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The memory counts until Redis comes; each change is logged once."""
    caplog.set_level(logging.INFO, "meter.rates")

    async def run(server: RedisServer) -> None:
        async with sharing(server) as (rates, shared):
            assert [await quick(rates, Asked(REQUESTS, 1)) for _ in range(11)] == [True] * 10 + [False]
            await until(away_was_logged)
            server.start()
            await until(lambda: here(shared))
            assert await quick(rates, Asked(REQUESTS, 1))

    async def away_was_logged() -> bool:
        return "Redis is away" in caplog.text

    with services.redis_server() as server:
        asyncio.run(run(server))

    assert caplog.text.count("Redis is away") == 1
    assert caplog.text.count("counted in Redis") == 1


@pytest.mark.parametrize("fault", ["stopped", "paused"])
def test_redis_that_goes_under_load(fault: str, redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """No request fails or waits long; the memory goes on with what it has counted, and Redis comes back."""
    caplog.set_level(logging.INFO, "meter.rates")

    async def run() -> None:
        async with sharing(redis) as (rates, shared):
            await until(lambda: here(shared))
            assert all([await quick(rates, Asked(REQUESTS, 1)) for _ in range(4)])
            redis.stop() if fault == "stopped" else redis.pause()
            admitted = await asyncio.gather(*(quick(rates, Asked(REQUESTS, 1)) for _ in range(40)))
            assert sum(admitted) == 6
            await until(away_was_logged)
            assert not shared.here
            # All of this was while Redis was away, and now nobody even asks it.
            assert [at_once(rates, Asked(OTHERS, 1)) for _ in range(11)] == [True] * 10 + [False]
            redis.start() if fault == "stopped" else redis.resume()
            await until(lambda: here(shared))
            await until(lambda: counted(rates))

    async def away_was_logged() -> bool:
        return "Redis is away" in caplog.text

    async def counted(rates: Rates) -> bool:
        assert await quick(rates, Asked(LATER, 1))
        return LATER.name.encode() in redis.command("KEYS *")

    asyncio.run(run())

    assert caplog.text.count("Redis is away") == 1
    assert caplog.text.count("counted in Redis") == 2


def test_one_late_answer_of_redis_is_nothing_to_tell(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The memory decides about that request, and Redis about the next, without a word in the log."""
    caplog.set_level(logging.INFO, "meter.rates")

    async def run() -> None:
        async with sharing(redis) as (rates, shared):
            redis.pause()
            assert await quick(rates, Asked(REQUESTS, 1))
            redis.resume()
            await until(lambda: here(shared))
            assert await quick(rates, Asked(REQUESTS, 1))

    asyncio.run(run())

    assert caplog.text.count("Redis is away") == 0
    assert caplog.text.count("counted in Redis") == 1


def test_a_redis_that_cannot_be_used(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong with it, such as an option that there is none of, the memory counts."""

    async def run() -> None:
        shared = SharedCounters("redis://127.0.0.1:1/0?nonsense=1")
        clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)
        rates = Rates(clock=clock, shared=shared)
        running = asyncio.create_task(shared.run())
        try:
            await until(told)
            assert [await admits(rates, Asked(REQUESTS, 1)) for _ in range(11)] == [True] * 10 + [False]
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def told() -> bool:
        return "nonsense" in caplog.text

    asyncio.run(run())


def test_redis_that_forgets(redis: RedisServer) -> None:
    """A flushed Redis counts anew, and has no other consequence."""

    async def run() -> None:
        async with sharing(redis) as (rates, shared):
            await until(lambda: here(shared))
            assert [await quick(rates, Asked(REQUESTS, 1)) for _ in range(11)] == [True] * 10 + [False]
            redis.command("FLUSHALL")
            redis.command("SCRIPT FLUSH")
            assert await quick(rates, Asked(REQUESTS, 1))
            assert REQUESTS.name.encode() in redis.command("KEYS *")

    asyncio.run(run())


def test_redis_keeps_two_numbers_of_a_rate_and_lets_them_go(redis: RedisServer) -> None:
    """Every key has an end, under meter's own prefix."""

    async def run() -> None:
        async with sharing(redis) as (rates, shared):
            await until(lambda: here(shared))
            assert await admits(rates, Asked(REQUESTS, 1), Asked(TOKENS, 700))

    asyncio.run(run())

    answer = redis.command("KEYS *").decode()
    names = [line for line in answer.splitlines() if "meter:rates:" in line]
    assert len(names) == 2
    for name in names:
        assert 0 < int(redis.command(f"TTL {name}").decode().strip(":\r\n")) <= 120
