"""A server under load, to which something is done again and again, and what holds afterwards."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from meter.core.events import Outcome, UsageEvent
from tests.faults import reconciler
from tests.faults.case import calm
from tests.faults.reconciler import Allowed
from tests.faults.traffic import Got
from tests.soak.faults import FAULTS, UNAUTHORIZED, Fault
from tests.soak.ground import Ground, laid
from tests.soak.load import Minute
from tests.soak.samples import Flatness, flatness

MINUTE_SECONDS = 60.0
SAMPLE_SECONDS = 5.0
SAMPLES_LEAST = 24
# A client may notice a moment later what was done to it.
EXCUSED_SECONDS = 1.0
SHOWN_MAX = 20
HEADING = "minute requests failed events p99 ms  RSS in MiB and open files; faults"
# Before the request was sent, behind that, or by a client of whom nobody knows whether it was.
ALLOWED = Allowed(
    extra=frozenset(
        {Outcome.UNREACHABLE, Outcome.INTERRUPTED, Outcome.CLIENT_CLOSED, Outcome.UPSTREAM_CLOSED}
    )
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long a soak is, and what happens in it."""

    database: str
    seconds: float
    every_seconds: float = 10.0
    seed: int = 0
    faults: tuple[Fault, ...] = FAULTS


@dataclass
class Told:
    """What came of it."""

    violations: list[str] = field(default_factory=list)
    flatness: list[Flatness] = field(default_factory=list)
    requests: int = 0
    done: list[str] = field(default_factory=list)


@dataclass
class Soak:
    """One soak."""

    course: Course
    ground: Ground
    say: Callable[[str], object]
    told: Told = field(default_factory=Told)
    _excuses: list[tuple[float, float]] = field(default_factory=list)

    async def run(self) -> None:
        """Load, do things, and look at what came of each minute when the next one is over."""
        await self.ground.known()
        self.say(HEADING)
        until = time.monotonic() + self.course.seconds
        loading = asyncio.create_task(self.ground.load.run())
        sampling = asyncio.create_task(self._sample(until))
        doing = asyncio.create_task(self._do(until))
        waiting: Minute | None = None
        while not doing.done() and not loading.done():
            await asyncio.wait([doing, loading], timeout=MINUTE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            over, self.ground.load.minute = (
                self.ground.load.minute,
                Minute(self.ground.load.minute.number + 1),
            )
            if waiting is not None:
                await self._look(waiting)
            waiting = over
        if loading.done():
            doing.cancel()
        self.ground.load.over.set()
        await asyncio.gather(loading, sampling, doing)
        for minute in filter(None, [waiting, self.ground.load.minute]):
            await self._look(minute)

    async def _do(self, until: float) -> None:
        for fault in self._faults(until):
            left = until - time.monotonic()
            await asyncio.sleep(min(self.course.every_seconds, max(0.0, left)))
            if left < self.course.every_seconds:
                return
            await self._do_one(fault)

    def _faults(self, until: float) -> Iterator[Fault]:
        """Yield faults in random order, all of them before any a second time.

        Where whoever kills a process kills the server, there is no more of it in the second half: somebody
        has to live long for its memory to tell.
        """
        chance = random.Random(f"{self.course.seed} {self.course.database}")
        known = [fault for fault in self.course.faults if self.course.database in fault.databases]
        while True:
            for fault in chance.sample(known, len(known)):
                late = time.monotonic() > until - self.course.seconds / 2
                if not (fault.kills and self.ground.alone and late):
                    yield fault

    async def _do_one(self, fault: Fault) -> None:
        began = time.monotonic()
        minute = self.ground.load.minute
        minute.faults.append(fault.name)
        self.told.done.append(fault.name)
        try:
            found = await fault.act(self.ground)
        except Exception as broken:  # noqa: BLE001 (it is a violation, and the rest goes on)
            found = [f"{fault.name} broke: {type(broken).__name__}: {broken}"]
        self.told.violations += found
        if fault.excuses:
            self._excuses.append((began, time.monotonic() + EXCUSED_SECONDS))

    async def _sample(self, until: float) -> None:
        pause = min(SAMPLE_SECONDS, self.course.seconds / SAMPLES_LEAST)
        while time.monotonic() < until:
            self.ground.sample(time.monotonic())
            await asyncio.sleep(pause)

    async def _look(self, minute: Minute) -> None:
        """Hold what clients, the upstream and the ledger say about a minute against each other."""
        async with self.ground.quiet:
            found = await asyncio.to_thread(self._reconcile, minute)
            events = await asyncio.to_thread(self.ground.site.events, minute.prefix)
        failed = [got for got in minute.gots if self._right(got) and not (got.status == 200 and got.whole)]
        unexcused = [got for got in failed if not self._excused(got)]
        found += [f"I6: {got.model} got {got.status} {got.fault}" for got in unexcused]
        found += [f"T: a wrong key got {got.status}" for got in minute.gots if self._let_in(got)]
        self.told.violations += found
        self.told.requests += len(minute.gots)
        count = sum(map(len, events.values()))
        numbers = f"{minute.number + 1:6} {len(minute.gots):8} {len(failed):6} {count:6}"
        self.say(f"{numbers} {self._p99_ms(minute):6.0f}  {self._processes()}; {', '.join(minute.faults)}")
        for violation in found[:SHOWN_MAX]:
            self.say(f"       {violation}")

    def _reconcile(self, minute: Minute) -> list[str]:
        truths = self.ground.site.script.forget(minute.prefix)
        unasked = [model for model in truths if "-wrong-" in model]
        found = [f"I11: {model} reached the upstream with a wrong key" for model in unasked]
        return found + reconciler.reconcile(self.ground.site, minute.gots, minute.prefix, ALLOWED, truths)

    def _right(self, got: Got) -> bool:
        return got.model.split("-")[2] in {"json", "stream"}

    def _let_in(self, got: Got) -> bool:
        """Say whether a wrong key got anything but a refusal; who cannot look it up says so."""
        return got.model.split("-")[2] == "wrong" and got.status not in {UNAUTHORIZED, 503, None}

    def _excused(self, got: Got) -> bool:
        return any(began <= got.ended and got.began <= ended for began, ended in self._excuses)

    def _p99_ms(self, minute: Minute) -> float:
        """Return how long answers took that nothing was done to."""
        answers = [got for got in minute.gots if "-json-" in got.model and not self._excused(got)]
        seconds = sorted(got.ended - got.began for got in answers)
        return 1000 * seconds[int(len(seconds) * 0.99)] if seconds else 0.0

    def _processes(self) -> str:
        newest = {life.name: life for life in self.ground.lives.values() if life.samples}
        return " ".join(
            f"{name} {life.samples[-1].rss_bytes >> 20},{life.samples[-1].descriptors}"
            for name, life in sorted(newest.items())
        )

    def conclude(self) -> None:
        """When nobody asks any more: nothing came through unasked, all is said, and nothing has grown."""
        ground, told = self.ground, self.told
        told.violations += [f"I11: {model} reached the upstream" for model in ground.site.script.truths()]
        events = [event for found in ground.site.events().values() for event in found]
        told.violations += calm(ground.site, "soak-calm", self._settled(events))
        compared = filter(None, map(flatness, ground.lives.values()))
        told.flatness = [each for each in compared if each.life.seconds >= self.course.seconds / 3]
        told.violations += [
            violation for each in told.flatness if each.tells for violation in each.violations
        ]
        if not told.flatness:
            told.violations.append("I7: no process lived long enough to tell whether it grows")
        told.violations += ground.let_go(told.flatness)

    def _settled(self, events: list[UsageEvent]) -> int:
        """Count what the living server has settled, but for what it settled for the dead."""
        if self.ground.alone:
            return sum(event.started_at >= self.ground.started_at for event in events)
        # Its supervisor has lived all along, and so have the counters of those that have died.
        return len(events) - self.ground.site.adopted


def run(course: Course, say: Callable[[str], object]) -> Told:
    """Run one soak, and say minute by minute what comes of it."""
    with laid(course.database, course.seed) as ground:
        soak = Soak(course, ground, say)
        asyncio.run(soak.run())
        soak.conclude()
        for each in soak.told.flatness:
            say(f"       {'flat' if each.tells else 'too short to tell'}: {each}")
        return soak.told
