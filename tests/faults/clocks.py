"""F43, F44 and F73: wall clocks that jump under running streams, and servers that differ in the time.

A preloaded library of our own shifts what a server takes for the time of day, while it runs. The monotonic
clock is left alone, as it is by whoever sets a real clock. A server goes by its database's clock: that of
PostgreSQL is right all the time, and SQLite's is the server's own, which it looks at every few seconds.
"""

import asyncio
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meter.core.events import UsageEvent
from meter.core.period import period_of
from tests import services
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, Skip, calm, failures
from tests.faults.reconciler import KILLED
from tests.faults.scale import neighbour
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, SQLITE, Site
from tests.faults.traffic import Got

ON = (POSTGRESQL,)
SOURCE = Path(__file__).parent / "wall_clock.c"
_SHIFT = struct.Struct("=q")
MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
STREAMS = 30
# How far what a server takes for a duration may be from what its client waited.
DURATION_MS_MAX = 2000
EDGE_SECONDS = 60
SEEN_SECONDS_MAX = 15.0


class WallClock:
    """The time of a server, as far as it is wrong."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "wall.clock"
        self._file.write_bytes(_SHIFT.pack(0))
        library = _compiled(folder / "wall_clock.so")
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}
        """What a process needs to go by it."""
        self.seconds = 0
        self.shifts = {0}
        """What it has been shifted by so far."""

    def shift(self, seconds: int) -> None:
        """Be so much ahead of the true time from now on."""
        # In place: the servers have the file mapped.
        with self._file.open("r+b") as file:
            file.write(_SHIFT.pack(seconds))
        self.seconds = seconds
        self.shifts.add(seconds)


def _compiled(library: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skip("moving a process's wall clock needs a C compiler, for tests/faults/wall_clock.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"wall_clock.c cannot be compiled here: {done.stderr.strip()[-200:]}")
    return library


@contextmanager
def _clocked(case: Case, url: str | None = None) -> Iterator[tuple[Site, WallClock]]:
    with case.site(url) as site:
        clock = WallClock(site.data_dir.parent)
        site.environment |= clock.environment
        yield site, clock


async def _streams(site: Site, prefix: str, clock: WallClock, jumps: list[int]) -> list[Got]:
    """Open streams, and have the clock jump while they are under way."""
    models = [f"{prefix}{number}" for number in range(STREAMS)]
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await traffic.until(lambda: site.script.count >= STREAMS, "all requests at the upstream")
    for jump in jumps:
        await asyncio.sleep(0.2)
        clock.shift(jump)
    return await asking


def f43(case: Case) -> list[str]:
    """Have the clock jump an hour ahead, an hour back, and forty days ahead, with streams open."""
    found: list[str] = []
    with _clocked(case) as (site, clock):
        site.start()
        settled = 0
        for run in range(case.runs):
            for at, jumps in enumerate([[HOUR], [-HOUR], [40 * DAY], [-HOUR, 40 * DAY, 0]]):
                clock.shift(0)
                site.script.play(Plan(pieces=30, pause=0.03))
                prefix = f"f43-{run}-{at}-"
                gots = asyncio.run(_streams(site, prefix, clock, jumps))
                # And some that begin under the new time.
                late = [f"{prefix}late-{number}" for number in range(5)]
                gots += asyncio.run(traffic.all_at_once(site.url, site.key, late))
                found += failures(gots, f"streams while the clock jumped by {jumps} s")
                found += reconciler.reconcile(site, gots, prefix)
                found += _durations(site, prefix, gots) + _began(site, f"{prefix}late", clock)
                settled += len(gots)
        found += calm(site, "f43c", settled, told=case.full)
        return found + _killed_ahead(site, clock)


def _killed_ahead(site: Site, clock: WallClock) -> list[str]:
    """Kill a server whose clock has just jumped; the next one, with the right time, adopts its journal."""
    found: list[str] = []
    for jump in (40 * DAY, -HOUR):
        clock.shift(0)
        site.script.play(Plan(pieces=60, pause=0.03))
        prefix = f"f43-killed-{jump}-"

        async def kill(prefix: str = prefix, jump: int = jump) -> list[Got]:
            asking = asyncio.create_task(_streams(site, prefix, clock, [jump]))
            await traffic.until(lambda: clock.seconds == jump, "the jump")
            await asyncio.to_thread(site.kill)
            return await asking

        gots = asyncio.run(kill())
        clock.shift(0)
        site.start()
        found += reconciler.reconcile(site, gots, prefix, KILLED)
    return found


def _durations(site: Site, prefix: str, gots: list[Got]) -> list[str]:
    """Durations are those that clients waited, whatever the clock did."""
    waited = {got.model: (got.ended - got.began) * 1000 for got in gots}
    return [
        f"F43: {model} took {waited[model]:.0f} ms, and its event has {event.ttfb_ms}, {event.duration_ms}"
        for model, events in site.events(prefix).items()
        for event in events
        if not _plausible(event, waited[model])
    ]


def _plausible(event: UsageEvent, waited_ms: float) -> bool:
    ttfb_ms, duration_ms = event.ttfb_ms or 0, event.duration_ms or 0
    return 0 <= ttfb_ms <= duration_ms <= waited_ms + DURATION_MS_MAX


def f44(case: Case) -> list[str]:
    """Step across the edge of a month and back, with streams open: each event counts in one period only."""
    found: list[str] = []
    with _clocked(case) as (site, clock):
        edge = _next_month(datetime.now(UTC))
        before = int((edge - datetime.now(UTC)).total_seconds()) - EDGE_SECONDS
        clock.shift(before)
        site.start()
        settled = 0
        for run in range(case.runs):
            for side, jump in (("over", before + 2 * EDGE_SECONDS), ("back", before)):
                site.script.play(Plan(pieces=30, pause=0.03))
                prefix = f"f44-{run}-{side}-"
                gots = asyncio.run(_streams(site, prefix, clock, [jump]))
                gots += _until_seen(site, f"{prefix}probe-", edge, after=side == "over")
                late = [f"{prefix}late-{number}" for number in range(STREAMS)]
                gots += asyncio.run(traffic.all_at_once(site.url, site.key, late))
                found += failures(gots, "streams while the clock stepped across a month's edge")
                found += reconciler.reconcile(site, gots, prefix)
                settled += len(gots)
            found += _months(site, case, edge)
        clock.shift(0)
        return found + calm(site, "f44c", settled, told=case.full)


def _until_seen(site: Site, prefix: str, edge: datetime, *, after: bool) -> list[Got]:
    """Ask until events begin on the right side of the edge: the clock is looked at every few seconds."""
    gots: list[Got] = []
    deadline = time.monotonic() + SEEN_SECONDS_MAX
    while time.monotonic() < deadline:
        model = f"{prefix}{len(gots)}"
        gots += asyncio.run(traffic.all_at_once(site.url, site.key, [model]))
        reconciler.reconcile(site, gots[-1:], model)
        if all((event.started_at >= edge) is after for event in site.events(model)[model]):
            break
    return gots


def _next_month(now: datetime) -> datetime:
    return period_of(now, "month", UTC).end


def _months(site: Site, case: Case, edge: datetime) -> list[str]:
    """Expect each event in the report's month in which it began, and none in another one."""
    events = [event for found in site.events("f44-").values() for event in found]
    after = sum(event.started_at >= edge for event in events)
    report = site.running.report("--by", "month", "--since", "2020-01-01", "--until", "2100-01-01")
    counts = {row["month"]: row["requests"] for row in report["rows"]}
    expected = {f"{edge:%Y-%m}": after, f"{edge - timedelta(days=1):%Y-%m}": len(events) - after}
    case.notes.append(f"{len(events) - after} before the edge, {after} behind it")
    found = [] if after and after < len(events) else ["F44: all began on one side of the edge"]
    return found if counts == expected else [*found, f"F44: {counts} are reported, {expected} are right"]


def f73(case: Case) -> list[str]:
    """Run two servers of one database, one of them an hour ahead."""
    found: list[str] = []
    with services.fresh_database() as url, _clocked(case, url) as (site, clock):
        clock.shift(HOUR)
        site.start()
        other = neighbour(site, "other")
        other.start()
        try:
            for run in range(case.runs):
                site.script.play(Plan(pieces=10, pause=0.03))
                gots = asyncio.run(_on_both([site, other], f"f73-{run}-"))
                found += failures(gots, "two servers with different clocks")
                found += reconciler.reconcile(site, gots, f"f73-{run}-")
                found += _began(site, f"f73-{run}-", clock)
            return found + reconciler.told(site) + reconciler.told(other)
        finally:
            other.close()


async def _on_both(sites: list[Site], prefix: str) -> list[Got]:
    asking = [
        traffic.load(site.url, site.key, f"{prefix}{at}", clients=5, seconds=3)
        for at, site in enumerate(sites)
    ]
    return [got for gots in await asyncio.gather(*asking) for got in gots]


def _began(site: Site, prefix: str, clock: WallClock) -> list[str]:
    """Events began by the database's clock: the right one, or SQLite's, as the server last saw it."""
    shifts = clock.shifts if site.database_url is None else {0}
    rights = [time.time() + shift for shift in shifts]
    return [
        f"{event.model_requested} began {event.started_at}, on clocks {sorted(shifts)} s ahead"
        for found in site.events(prefix).values()
        for event in found
        if min(abs(event.started_at.timestamp() - right) for right in rights) > MINUTE
    ]


EXPERIMENTS = (
    Experiment("F43", f43, 1, 0),
    Experiment("F44", f44, 1, 0, databases=(SQLITE,)),
    Experiment("F73", f73, 1, 0, databases=ON),
)
