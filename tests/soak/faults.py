"""What is done to a server in a soak, one thing after the other."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import httpx

from tests.faults import traffic
from tests.faults.case import BOTH
from tests.faults.site import POSTGRESQL, SQLITE
from tests.faults.traffic import Got
from tests.soak.ground import Ground
from tests.soak.load import LEAVES_AT
from tests.soak.upstream import RESETS, STALLS

STOP_SECONDS = 2.0
AWAY_SECONDS = 3.0
MOOD_SECONDS = 2.0
# Longer than the idle time-out of a soak's servers.
STALL_SECONDS = 7.0
HANG_UPS = 50
CROWD = 30
SCRAPERS = 50
SCRAPES = 3
# A change of a key or a budget holds after five seconds.
CHANGE_SECONDS_MAX = 10.0
ROOM = 3
OK, UNAUTHORIZED, TOO_MANY = 200, 401, 429


class Fault(NamedTuple):
    """Something that is done."""

    name: str
    act: Callable[[Ground], Awaitable[list[str]]]
    """Returns what was not as it must be."""
    excuses: bool = False
    """Whether requests may fail meanwhile."""
    kills: bool = False
    """Whether a process ends."""
    databases: tuple[str, ...] = BOTH


async def kill(ground: Ground) -> list[str]:
    """Kill a process, and have the next one take over."""
    await ground.replaced(signal.SIGKILL)
    return []


async def terminate(ground: Ground) -> list[str]:
    """End a process, and have the next one take over."""
    await ground.replaced(signal.SIGTERM)
    return []


async def stop(ground: Ground) -> list[str]:
    """Stop a process where it is, and let it go on."""
    await ground.tell(signal.SIGSTOP)
    try:
        await asyncio.sleep(STOP_SECONDS)
    finally:
        await ground.tell(signal.SIGCONT)
    return []


async def database_stops(ground: Ground) -> list[str]:
    """Stop PostgreSQL, and start it again."""
    assert ground.cluster is not None
    async with ground.quiet:
        await asyncio.to_thread(ground.cluster.stop)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(ground.cluster.start)
    return []


async def database_hangs(ground: Ground) -> list[str]:
    """Pause PostgreSQL, and let it go on."""
    assert ground.cluster is not None
    async with ground.quiet:
        ground.cluster.pause()
        try:
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            ground.cluster.resume()
    return []


async def database_locked(ground: Ground) -> list[str]:
    """Hold SQLite's lock."""
    async with ground.quiet:
        with ground.locked():
            await asyncio.sleep(AWAY_SECONDS)
    return []


async def upstream_refuses(ground: Ground) -> list[str]:
    """Have nobody listen where the upstream was."""
    refusing = ground.site.script.upstream.refusing()
    await asyncio.to_thread(refusing.__enter__)
    await asyncio.sleep(MOOD_SECONDS)
    await asyncio.to_thread(refusing.__exit__, None, None, None)
    return []


async def upstream_resets(ground: Ground) -> list[str]:
    """Have the upstream reset its connections at any place of an answer."""
    ground.moods.mood = RESETS
    await asyncio.sleep(MOOD_SECONDS)
    ground.moods.go_on()
    return []


async def upstream_stalls(ground: Ground) -> list[str]:
    """Have the upstream fall silent within its answers, for longer than meter waits."""
    ground.moods.mood = STALLS
    await asyncio.sleep(STALL_SECONDS)
    ground.moods.go_on()
    return []


async def hang_ups(ground: Ground) -> list[str]:
    """Have many clients leave at the same moment."""
    leaving = asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: Got) -> None:
        reading = asyncio.create_task(traffic.read_all(reader, writer, got))
        left = asyncio.create_task(leaving.wait())
        await asyncio.wait([reading, left], return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, left):
            task.cancel()
        await asyncio.gather(reading, left, return_exceptions=True)

    key = ground.site.key
    asking = [asyncio.create_task(ground.load.ask("crowd", key, read)) for _ in range(HANG_UPS)]
    await asyncio.sleep(MOOD_SECONDS)
    leaving.set()
    await asyncio.gather(*asking)
    return []


async def slow_readers(ground: Ground) -> list[str]:
    """Have many clients read little of streams of a megabyte."""

    async def read(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, got: Got) -> None:
        for _ in range(LEAVES_AT):
            got.raw += await reader.read(1024)
            got.pieces.append((time.monotonic(), len(got.raw)))
            await asyncio.sleep(1)

    key = ground.site.key
    await asyncio.gather(*(ground.load.ask("slow", key, read) for _ in range(CROWD)))
    return []


async def scrapes(ground: Ground) -> list[str]:
    """Scrape by many at once; of several processes one is replaced meanwhile, and no counter goes back."""
    with ground.control() as control:
        scraping = [asyncio.create_task(_totals(control)) for _ in range(SCRAPERS)]
        if not ground.alone:
            await ground.replaced(signal.SIGKILL)
        told = await asyncio.gather(*scraping)
        await control.aclose()
    back = [totals for totals in told if totals != sorted(totals)]
    return [f"F78: a counter went back: {back[0]}"] if back else []


async def _totals(control: httpx.AsyncClient) -> list[float]:
    found = []
    for _ in range(SCRAPES):
        page = (await control.get("/metrics")).text
        lines = re.findall(r"^meter_requests_total\{[^}]*\} (\S+)$", page, re.MULTILINE)
        found.append(sum(map(float, lines)))
    return found


async def revoke(ground: Ground) -> list[str]:
    """Make a key, use it and revoke it: it soon stops working."""
    with ground.control() as control:
        made = (await control.post("/api/v1/keys", json={"team": "default"})).json()
        got = await ground.load.ask("revoked", made["key"])
        await control.delete(f"/api/v1/keys/{made['id']}")
        await control.aclose()
    found = [] if got.status == OK else [f"I6: a new key got {got.status}"]
    return found + await _refused(ground, "revoked", made["key"])


async def rotate(ground: Ground) -> list[str]:
    """Rotate a key: its successor works at once, and it itself soon stops working."""
    with ground.control() as control:
        made = (await control.post("/api/v1/keys", json={"team": "default"})).json()
        await ground.load.ask("rotated", made["key"])
        path = f"/api/v1/keys/{made['id']}/rotate"
        successor = (await control.post(path, json={"grace_seconds": 0})).json()
        await control.aclose()
    got = await ground.load.ask("rotated", successor["key"])
    found = [] if got.status == OK else [f"I6: a key's successor got {got.status}"]
    return found + await _refused(ground, "rotated", made["key"])


async def _refused(ground: Ground, kind: str, key: str) -> list[str]:
    """Wait until every process refuses a key."""
    deadline = time.monotonic() + CHANGE_SECONDS_MAX
    refusals = 0
    while refusals < LEAVES_AT:
        got = await ground.load.ask(kind, key)
        refusals = refusals + 1 if got.status == UNAUTHORIZED else 0
        if time.monotonic() > deadline:
            return [f"T: a {kind} key still got {got.status} after {CHANGE_SECONDS_MAX:.0f} s"]
        await asyncio.sleep(0.2)
    return []


async def budget(ground: Ground) -> list[str]:
    """Make a key with a budget, use it up, and raise it: exactly as many requests pass."""
    with ground.control() as control:
        made = (await control.post("/api/v1/keys", json={"team": "default"})).json()
        found = await _budgeted(ground, control, made, ROOM, 0)
        found += await _budgeted(ground, control, made, 2 * ROOM, ROOM)
        await control.aclose()
    return found


async def _budgeted(
    ground: Ground, control: httpx.AsyncClient, made: dict[str, str], limit: int, spent: int
) -> list[str]:
    """Set a limit, and use it up; then nothing passes any more."""
    draft = {"key": made["id"], "measure": "requests", "period": "total", "enforcement": "strict"}
    answer = await control.put("/api/v1/budgets", json=draft | {"limit": str(limit)})
    if answer.status_code != OK:
        return [f"I4: a budget got {answer.status_code}: {answer.text}"]
    # Until then a budget is not held against requests everywhere.
    await asyncio.sleep(CHANGE_SECONDS_MAX / 2 + 1)
    deadline = time.monotonic() + CHANGE_SECONDS_MAX
    admitted = 0
    # One process may hold what another one is asked for, and gives it back in a moment.
    while admitted < limit - spent and time.monotonic() < deadline:
        admitted += (await ground.load.ask("budget", made["key"])).status == OK
        await asyncio.sleep(0.2)
    beyond = [(await ground.load.ask("budget", made["key"])).status for _ in range(ROOM)]
    if admitted == limit - spent and OK not in beyond:
        return []
    return [f"I4: with room for {limit - spent} {admitted} were admitted, and then {beyond}"]


FAULTS = (
    Fault("kill -9", kill, excuses=True, kills=True),
    Fault("SIGTERM", terminate, excuses=True, kills=True),
    Fault("SIGSTOP", stop),
    Fault("database stops", database_stops, databases=(POSTGRESQL,)),
    Fault("database hangs", database_hangs, databases=(POSTGRESQL,)),
    Fault("database locked", database_locked, databases=(SQLITE,)),
    Fault("upstream refuses", upstream_refuses, excuses=True),
    Fault("upstream resets", upstream_resets, excuses=True),
    Fault("upstream stalls", upstream_stalls, excuses=True),
    Fault("50 clients leave", hang_ups),
    Fault("30 slow readers", slow_readers),
    Fault("50 scrapers", scrapes, excuses=True),
    Fault("a key revoked", revoke),
    Fault("a key rotated", rotate),
    Fault("a budget", budget),
)
