"""Budgets of servers that lose Redis, the database, or each other."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from random import Random

from meter.app.actions import clock
from meter.core.budgets import Enforcement, Measure
from meter.store import allowances
from tests import services
from tests.fake_upstream import Gate
from tests.faults import cutter, traffic
from tests.faults.script import Plan
from tests.faults.traffic import Got
from tests.quota.servers import (
    BODY,
    QUIET_SECONDS_MAX,
    ROOM,
    Row,
    Setting,
    Town,
    ask,
    beside,
    burst,
    insist,
    town,
)
from tests.quota.storms import Asking, at_once
from tests.server import Meter
from tests.services import RedisServer

RPM = 10
OFFERED_TO_RATES = 15
OFFERED_TO_BUDGET = 40
# A server beats every two seconds, and takes up what has changed.
LEASED_REQUESTS = 300
HELD = 50


def redis(setting: Setting) -> Iterator[Row]:
    """F42: Redis is gone, silent, flushed, or empty: rates go on in memory, and budgets don't notice."""
    with services.redis_server() as shared, town(setting, redis_url=shared.url) as found:
        faults_of: dict[str, Callable[[RedisServer], object]] = {
            "there": lambda _: None,
            "flushed": lambda each: each.command("FLUSHALL"),
            "silent": lambda each: each.pause(),
            "back": lambda each: each.resume(),
            "gone": lambda each: each.stop(),
            "empty": lambda each: each.start(),
        }
        shared.start()
        for name in faults_of:
            found.key(name, limit=ROOM)
            found.key(f"rate-{name}", limit=10**6)
            with found.site.running.control as control:
                key_id = found.keys[f"rate-{name}"].split("_")[1]
                control.patch(f"/api/v1/keys/{key_id}", json={"rpm": RPM}).raise_for_status()
        found.open()
        for name, happens in faults_of.items():
            happens(shared)
            gate = Gate()
            found.site.script.play(Plan(before_head=gate, streams=False))
            admitted, gots = asyncio.run(burst(found, name, OFFERED_TO_BUDGET, gate))
            faults = found.exact(name, admitted, Measure.REQUESTS)
            faults += [] if admitted == ROOM else [f"{admitted} were admitted on room for {ROOM}"]
            faults += [f"the answer was {got.status}" for got in gots if got.status not in {200, 429}]
            faults += _rated(found, f"rate-{name}")
            yield Row(
                setting=setting,
                experiment=f"F42: Redis {name}",
                enforcement=Enforcement.STRICT,
                measure=Measure.REQUESTS,
                offered=OFFERED_TO_BUDGET,
                admitted=admitted,
                limit=ROOM,
                overshoot=max(0, admitted - ROOM),
                falsely_refused=max(0, ROOM - admitted),
                faults=tuple(faults),
            )


def _rated(found: Town, name: str) -> list[str]:
    """Ask one server more often than a rate lets pass, which counts in Redis or in memory."""
    found.site.script.play(Plan(streams=False))

    async def one_by_one() -> list[Got]:
        return [await ask(found.urls[0], found.keys[name]) for _ in range(OFFERED_TO_RATES)]

    gots = asyncio.run(one_by_one())
    passed = sum(got.status == 200 for got in gots)
    refused = sum(got.status == 429 and b"rate_limit_exceeded" in got.raw for got in gots)
    expected = (RPM, OFFERED_TO_RATES - RPM)
    return [] if (passed, refused) == expected else [f"a rate of {RPM} let {passed} pass, refused {refused}"]


def partition(setting: Setting) -> Iterator[Row]:
    """F69: one of two servers loses the database within a burst, and admits only from what it holds."""
    with (
        services.fresh_database() as url,
        cutter.running(url, Random(69)) as between,
        town(setting, url) as found,
    ):
        found.key("parted", limit=LEASED_REQUESTS)
        other = _behind(found, between)
        gate = Gate()
        found.site.script.play(Plan(before_head=gate, streams=False))
        faults, admitted, falsely = asyncio.run(_parted(found, between, gate))
        faults += found.exact("parted", admitted, Measure.REQUESTS)
        got = asyncio.run(ask(other.url, found.keys["parted"]))
        wanted = 200 if admitted < LEASED_REQUESTS else 429
        faults += [] if got.status == wanted else [f"afterwards a request got {got.status}"]
        yield Row(
            setting=setting,
            experiment="F69: partition",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=OFFERED_IN_PARTS,
            admitted=admitted,
            limit=LEASED_REQUESTS,
            overshoot=max(0, found.stands("parted")[0] - LEASED_REQUESTS),
            falsely_refused=falsely,
            faults=tuple(faults),
        )


FIRST, PARTED, ELSEWHERE = 40, 100, 400
OFFERED_IN_PARTS = FIRST + PARTED + ELSEWHERE


def _behind(found: Town, between: cutter.Cutter) -> Meter:
    """Start the servers, one of which is behind the place where the network breaks."""
    found.site.restart()
    folder = found.site.data_dir.parent / "behind"
    found.beside.append(beside(found.site, folder, database_url=between.url))
    return found.beside[0]


async def _parted(found: Town, between: cutter.Cutter, gate: Gate) -> tuple[list[str], int, int]:
    here, there = found.urls
    key = found.keys["parted"]
    asking = [asyncio.create_task(ask(there, key)) for _ in range(FIRST)]
    await traffic.until(lambda: found.site.script.count >= FIRST, "all at the upstream", QUIET_SECONDS_MAX)
    between.part()
    asking += [asyncio.create_task(ask(there, key)) for _ in range(PARTED)]
    asking += [asyncio.create_task(insist(here, key)) for _ in range(ELSEWHERE)]
    total = len(asking)

    def decided() -> bool:
        return found.site.script.count + sum(task.done() for task in asking) >= total

    await traffic.until(decided, "every request to be decided", QUIET_SECONDS_MAX)
    admitted = found.site.script.count
    spent, reserved = found.stands("parted")
    statuses = [task.result().status for task in asking[FIRST:] if task.done()]
    between.mend()
    gate.open()
    gots = await asyncio.gather(*asking)
    parted = {got.status for got in gots[FIRST : FIRST + PARTED]}
    faults = [] if parted <= {200, 503} else [f"apart: {parted}"]
    faults += [] if set(statuses) <= {429, 503} else [f"{set(statuses)}"]
    faults += (
        [] if admitted <= LEASED_REQUESTS else [f"{admitted} were admitted on room for {LEASED_REQUESTS}"]
    )
    # What the parted server holds is not there for the other.
    left = max(0, LEASED_REQUESTS - spent - reserved)
    return faults, admitted, left if 429 in statuses else 0


def dies_holding(setting: Setting, *, journal_lost: bool) -> Iterator[Row]:
    """F70: what a dead server holds waits for its journal, or until somebody writes it off."""
    limit = HELD + ROOM
    with town(setting) as found:
        found.key("holding", limit=limit)
        found.open()
        gate = Gate()
        found.site.script.play(Plan(before_head=gate, streams=False))
        faults = asyncio.run(_dies(found, gate, limit))
        if journal_lost:
            faults += _written_off(found)
            admitted = ROOM + HELD
            gate = Gate()
            found.site.script.play(Plan(before_head=gate, streams=False))
            asking = [Asking(found.beside[0].url, found.keys["holding"], BODY)] * limit
            again = sum(got.status == 200 for got in asyncio.run(at_once(found, asking, gate)))
            faults += [] if again == HELD else [f"{again} were admitted when {HELD} had been written off"]
        else:
            found.site.start()
            admitted = limit
        faults += found.exact("holding", admitted, Measure.REQUESTS)
        got = asyncio.run(ask(found.beside[0].url, found.keys["holding"]))
        faults += [] if got.status == 429 else [f"past the limit a request got {got.status}"]
        spent, _ = found.stands("holding")
        yield Row(
            setting=setting,
            experiment="F70: lost" if journal_lost else "F70: dies",
            enforcement=Enforcement.STRICT,
            measure=Measure.REQUESTS,
            offered=2 * limit + HELD + 1,
            admitted=admitted,
            limit=limit,
            overshoot=max(0, spent - limit),
            falsely_refused=max(0, limit - spent),
            kills=1,
            faults=tuple(faults),
        )


async def _dies(found: Town, gate: Gate, limit: int) -> list[str]:
    first, other = found.urls
    key = found.keys["holding"]
    asking = [asyncio.create_task(ask(first, key)) for _ in range(HELD)]
    await traffic.until(lambda: found.site.script.count == HELD, "all at the upstream", QUIET_SECONDS_MAX)
    await asyncio.to_thread(found.site.kill)
    await asyncio.sleep(allowances.ALIVE_SECONDS + 2)
    holders = allowances.list_holders(found.site.database, clock.now())
    faults = [] if any(each.stranded for each in holders) else ["nobody is shown as stranded"]
    before = found.site.script.count
    others = [asyncio.create_task(ask(other, key)) for _ in range(limit)]
    await traffic.until(
        lambda: found.site.script.count - before + sum(task.done() for task in others) >= limit,
        "every request to be decided",
        QUIET_SECONDS_MAX,
    )
    admitted = found.site.script.count - before
    faults += [] if admitted == ROOM else [f"beside {HELD} stranded, {admitted} were admitted on {ROOM}"]
    gate.open()
    await asyncio.gather(*asking, *others)
    return faults


def _written_off(found: Town) -> list[str]:
    """Take away what the dead server held, whose disk is gone."""
    shutil.rmtree(found.site.data_dir)
    (stranded,) = [
        each for each in allowances.list_holders(found.site.database, clock.now()) if each.stranded
    ]
    done = found.beside[0].run("budgets", "release", stranded.holder)
    return [] if done.returncode == 0 else [f"budgets release: {done.stderr}"]
