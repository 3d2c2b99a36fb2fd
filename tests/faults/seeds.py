"""A process that dies anywhere, from a seed: the real journal and its delivery, over faults.

A run makes up attempts, writes them down, ships them, and dies at some operation: before it, after it, or
after half of a write. Then whoever comes next adopts the journal, perhaps dying once itself, and the ledger
is held against the truth. Everything comes from the seed, so that a number is a reproduction.
"""

import asyncio
import errno
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.attempts import Attempt, interrupted
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.journal.backlog import Backlog, Batch
from meter.journal.folder import CURSOR, LOCK, Folder, Position
from meter.journal.journal import RETRY_SECONDS, Journal
from meter.journal.quarantine import FILE, Quarantine
from meter.journal.recovery import adopt
from meter.journal.shipper import Delivery, Sink
from meter.journal.storage import Storage
from meter.store import ledger
from meter.store.database import Database
from meter.store.tables import usage_events
from tests.faults.table import Row, lines

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STEPS_MIN, STEPS_MAX = 5, 60
# So many seeds, of every experiment, keep their ledger in a real database.
SEEDS_A_DATABASE = 50

T = TypeVar("T")


class Plan(NamedTuple):
    """An experiment: what may go wrong beside the death."""

    name: str
    power: bool = False
    """The machine dies, not the process: what was not synced may be lost."""
    disk_fills: bool = False
    syncs_fail: bool = False
    ledger_fails: bool = False
    recovery_dies: bool = False


PLANS = (
    Plan("the process is killed"),
    Plan("killed; the next one too, while adopting", recovery_dies=True),
    Plan("killed; the ledger fails before or after its commit", ledger_fails=True),
    Plan("killed; the disk fills up, writes are cut", disk_fills=True),
    Plan("power cut", power=True),
    Plan("power cut; syncs fail", power=True, syncs_fail=True),
    Plan("power cut; ledger and recovery fail", power=True, ledger_fails=True, recovery_dies=True),
)


class Crash(BaseException):
    """The process dies here."""


class Refused(Exception):
    """What no sink of these runs ever raises."""


class Fuse:
    """Counts operations, and ends the process at one of them."""

    def __init__(self, random: Random, operations: int) -> None:
        self._left = operations
        self._when = random.choice(["before", "half", "after"])
        self.blown = False

    def run(self, effect: Callable[[], T], half: Callable[[], object] = lambda: None) -> T:
        """Carry an operation out, or die before it, after half of it or after it."""
        if self.blown:
            raise OSError(errno.EIO, "the process is dead")
        self._left -= 1
        if self._left:
            return effect()
        self.blown = True
        if self._when == "after":
            effect()
        elif self._when == "half":
            half()
        raise Crash


class Disk:
    """A storage on real files that knows what of them would survive a power cut."""

    def __init__(self, fuse: Fuse, random: Random) -> None:
        self._fuse = fuse
        self._random = random
        self._paths: dict[int, Path] = {}
        self._broken: set[int] = set()
        self._syncing = threading.Event()
        self._newest = -1
        self._failed = False
        self._repaired = True
        self.synced: dict[Path, int] = {}
        self.full = False
        self.sync_fate = "well"
        """What the next sync comes to: `well`, `failure`, or the power cut `before` or `after` it."""
        self.faults: list[str] = []
        self.storage = Storage(create=self._create, write=self._write, sync=self._sync, close=self._close)

    @property
    def busy(self) -> bool:
        """Whether the syncer has files to close, or the journal a failed one to make good."""
        if len(self._paths) > 1 or not self._repaired:
            return True
        newest = self._paths.get(self._newest)
        return self._failed and newest is not None and self.synced[newest] < newest.stat().st_size

    @contextmanager
    def syncs(self) -> Iterator[None]:
        """Let syncs go on; they wait otherwise, so that what they cover does not depend on the threads."""
        self._failed = False
        self._syncing.set()
        try:
            yield
        finally:
            self._syncing.clear()

    def end(self) -> None:
        """Let the dead go: nothing has an effect any more."""
        self._fuse.blown = True
        self._syncing.set()

    def close_all(self) -> None:
        """Close what the dead process had open."""
        for descriptor in list(self._paths):
            self._close(descriptor)

    def lose_unsynced(self) -> None:
        """Cut every file to what was synced and some of the rest, as a power cut does."""
        for path, synced in self.synced.items():
            os.truncate(path, self._random.randint(synced, path.stat().st_size))

    def _create(self, path: Path) -> int:
        if self.full and self._random.random() < 0.5:
            raise OSError(errno.ENOSPC, "no space left")
        return self._fuse.run(lambda: self._open(path))

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._paths[descriptor] = path
        self._newest = descriptor
        self.synced[path] = 0
        return descriptor

    def _write(self, descriptor: int, data: bytes) -> int:
        part = data[: self._random.randrange(len(data))]
        if self.full and not part[::2]:
            raise OSError(errno.ENOSPC, "no space left")
        if self.full:
            return self._fuse.run(lambda: os.write(descriptor, part))
        return self._fuse.run(lambda: os.write(descriptor, data), lambda: os.write(descriptor, part))

    def _sync(self, descriptor: int) -> None:
        """Run on the syncer's thread, while the other one does nothing but wait for it."""
        self._syncing.wait()
        if self._fuse.blown:
            return
        if descriptor in self._broken:
            self.faults.append("a file was synced again after its sync had failed")
        fate, self.sync_fate = self.sync_fate, "well"
        if fate == "failure":
            self._broken.add(descriptor)
            self._failed, self._repaired = True, False
            raise OSError(errno.EIO, "input/output error")
        if fate != "before":
            self.synced[self._paths[descriptor]] = os.fstat(descriptor).st_size
            # After a failure the journal asks for this one as soon as it has written everything anew.
            self._repaired = self._repaired or descriptor == self._newest
        if fate != "well":
            # From here on nothing has an effect, and nobody looks at what this thread answers.
            self._fuse.blown = True

    def _close(self, descriptor: int) -> None:
        if self._paths.pop(descriptor, None) is not None:
            self._broken.discard(descriptor)
            os.close(descriptor)


class Ledger:
    """The ledger of one run: in memory, or for some runs the real one."""

    def __init__(self, database: Database | None) -> None:
        self._database = database
        self._events: dict[str, UsageEvent] = {}

    def append(self, events: Sequence[UsageEvent]) -> int:
        """Append those events that are not there yet."""
        if self._database is not None:
            return ledger.append(self._database, events, NOW)
        before = len(self._events)
        for event in events:
            self._events.setdefault(event.event_id, event)
        return len(self._events) - before

    def events(self, event_ids: Iterable[str]) -> dict[str, UsageEvent]:
        """Return what it has of these events."""
        if self._database is None:
            return self._events
        found = {event_id: ledger.find(self._database, event_id) for event_id in event_ids}
        return {event_id: event for event_id, event in found.items() if event is not None}

    def faults(self, events: dict[str, UsageEvent]) -> list[str]:
        """Say what is wrong with the ledger itself."""
        if self._database is None:
            return []
        with self._database.read() as connection:
            rows = connection.scalar(sa.select(sa.func.count()).select_from(usage_events))
        counted = [] if rows == len(events) else [f"I2: {rows} rows for {len(events)} events"]
        return counted + ledger.verify(self._database)


class Told:
    """The truth about one attempt: what was written of it, and how sure it is."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.begun: Position | None = None
        """The place behind its intent, once that was written."""
        self.progress: list[tuple[int, Position]] = []
        """What was noted, and the place behind it."""
        self.tried = 0
        """The most tokens that anybody tried to note."""
        self.event: UsageEvent | None = None
        self.safe: asyncio.Future[None] | None = None
        self.acknowledged = False


@dataclass
class Life:
    """What one process does until it dies."""

    plan: Plan
    random: Random
    folder: Folder
    delivery: Delivery
    fuse: Fuse
    disk: Disk
    loop: "SteppedLoop"
    told: list[Told] = field(default_factory=list)
    _taken: Batch | None = None

    async def live(self) -> None:
        """Write, ship and die; afterwards the files are what the next process finds."""
        journal: Journal | None = None
        self.loop.set_exception_handler(lambda _loop, _context: None)
        try:
            with suppress(Crash):
                journal = self._open()
                await self._work(journal)
        finally:
            self.disk.end()
            if journal is not None:
                journal.close()
            self.disk.close_all()
        if self.plan.power:
            self.disk.lose_unsynced()
            self._lose_cursor()

    def _open(self) -> Journal:
        return Journal(
            self.folder,
            self.disk.storage,
            power=self.plan.power,
            bytes_max=1 << 30,
            segment_bytes_max=self.random.choice([1, 500, 3000, 1 << 20]),
        )

    async def _work(self, journal: Journal) -> None:
        backlog = Backlog(self.folder, end=lambda: journal.position, open_from=lambda: journal.open_from)
        steps: list[Callable[[], object]] = [
            lambda: self._begin(journal),
            lambda: self._progress(journal),
            lambda: self._settle(journal),
            lambda: self._ship(backlog),
            self._change_disk,
        ]
        for _ in range(self.random.randrange(STEPS_MIN, STEPS_MAX)):
            self.random.choices(steps, weights=[4, 4, 4, 3, 1])[0]()
            self._note(journal)
            if self.plan.power and self.random.random() < 0.3:
                await self._sync()
            await asyncio.sleep(0)
            self._note(journal)
            if self.fuse.blown:
                return

    def _begin(self, journal: Journal) -> None:
        told = Told(make_attempt(self.random))
        self.told.append(told)
        # What the disk has no room for does not begin.
        with suppress(OSError):
            journal.intent(told.attempt)
            told.begun = journal.position

    def _progress(self, journal: Journal) -> None:
        if running := [told for told in self.told if told.begun and not told.event]:
            told = self.random.choice(running)
            told.tried += self.random.randrange(1, 100)
            journal.progress(told.attempt.event_id, told.tried)
            if journal.usable:
                told.progress.append((told.tried, journal.position))

    def _settle(self, journal: Journal) -> None:
        if running := [told for told in self.told if told.begun and not told.event]:
            told = self.random.choice(running)
            told.event = make_settled(self.random, told.attempt)
            safe = journal.settle(told.event)
            if journal.usable:
                told.safe = safe

    def _ship(self, backlog: Backlog) -> None:
        """Take and deliver, and acknowledge later: other things happen in between."""
        if self._taken is None:
            self._taken = backlog.take(self.random.choice([1, 3, 1000]))
            if self._taken is not None:
                self.delivery.deliver(self._taken.events)
        else:
            backlog.acknowledge(self._taken)
            self._taken = None

    def _change_disk(self) -> None:
        self.disk.full = self.plan.disk_fills and not self.disk.full
        # The journal looks for room again when its time has come.
        self.loop.advance(RETRY_SECONDS * 2)

    def _note(self, journal: Journal) -> None:
        if self.fuse.blown:
            return
        for told in self.told:
            if told.safe is not None and told.safe.done():
                told.acknowledged = True
            if not self.plan.power and journal.usable and told.event is not None:
                told.acknowledged = True

    async def _sync(self) -> None:
        """Let the syncer do all that it was asked for, or die on the way."""
        if self.plan.syncs_fail:
            self.disk.sync_fate = self.random.choice(["well", "failure"])
        if self.random.random() < 0.05:
            self.disk.sync_fate = self.random.choice(["before", "after"])
        with self.disk.syncs():
            # What the other thread does tells nobody in this one.
            while not self.fuse.blown and (self._unsafe() or self.disk.busy):  # noqa: ASYNC110
                await asyncio.sleep(0.0001)
        self.disk.sync_fate = "well"

    def _unsafe(self) -> bool:
        return any(told.safe is not None and not told.safe.done() for told in self.told)

    def _lose_cursor(self) -> None:
        cursor = self.folder.path / CURSOR
        if cursor.exists():
            fate = self.random.choice(["kept", "kept", "gone", "empty"])
            if fate == "gone":
                cursor.unlink()
            elif fate == "empty":
                cursor.write_text("")


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on."""

    _ahead = 0.0

    def time(self) -> float:
        """Return the time that its timers go by."""
        return super().time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        self._ahead += seconds


class Impatient(threading.Event):
    """An event that nobody waits for: a delivery tries again at once."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 (of the class that it stands for)
        """Return at once."""
        return self.is_set()


def make_attempt(random: Random) -> Attempt:
    """Make up an attempt."""
    return Attempt(
        event_id=uuid7(int(NOW.timestamp() * 1000), random.randbytes(10)),
        started_at=NOW,
        team_id="team",
        key_id=random.choice(["k1", "k2"]),
        route="chat.completions",
        upstream="upstream",
        model=random.choice(["m1", "m2"]),
        stream=True,
        prompt_estimate=random.randrange(1, 1000),
        tags=tuple(random.sample(["a", "b", "c"], random.randrange(4))),
    )


def make_settled(random: Random, attempt: Attempt) -> UsageEvent:
    """Make up how an attempt ended."""
    return msgspec.structs.replace(
        interrupted(attempt, 0),
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        prompt_tokens=random.randrange(1000),
        completion_tokens=random.randrange(1000),
    )


def make_sink(append: Sink, fuse: Fuse, random: Random, fault_share: float) -> Sink:
    """Make a sink that dies with the process, and whose faults pass, before or after the commit."""

    def sink(events: Sequence[UsageEvent], /) -> int:
        fails = random.random() < fault_share
        if fails and random.random() < 0.5:
            raise ConnectionError("the ledger is away")
        # A transaction has no half.
        added = fuse.run(lambda: append(events))
        if fails:
            raise ConnectionError("the ledger went away while it committed")
        return added

    return sink


def run_seed(seed: int, database: Database | None = None) -> list[str]:
    """Run one seed; returns what is wrong, a sentence each."""
    random = Random(seed)
    plan = PLANS[seed % len(PLANS)]
    with tempfile.TemporaryDirectory(prefix="meter-seed-") as root:
        return [f"seed {seed}: {fault}" for fault in _run(plan, random, Path(root), Ledger(database))]


def _run(plan: Plan, random: Random, root: Path, books: Ledger) -> list[str]:
    folder = Folder(root / "holder")
    folder.path.mkdir()
    # As whoever claims a folder leaves it behind: nobody sees one without.
    (folder.path / LOCK).touch()
    fuse = Fuse(random, random.randrange(1, STEPS_MAX * 2))
    disk = Disk(fuse, random)
    loop = SteppedLoop()
    life = Life(plan, random, folder, _delivery(plan, random, root, books, fuse), fuse, disk, loop)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(life.live())
    _recover(plan, random, root, books)
    events = books.events(told.attempt.event_id for told in life.told)
    faults = [*disk.faults, *books.faults(events), *_quarantined(root)]
    faults += [fault for told in life.told if (fault := _judge(told, events, _kept(life)))]
    faults += _adopted_again(root, folder, books, events)
    return faults


def _delivery(plan: Plan, random: Random, root: Path, books: Ledger, fuse: Fuse) -> Delivery:
    share = 0.3 if plan.ledger_fails else 0.0
    sink = make_sink(books.append, fuse, random, share)
    return Delivery(sink=sink, refusal=Refused, quarantine=Quarantine(root), abandoned=Impatient())


def _recover(plan: Plan, random: Random, root: Path, books: Ledger) -> None:
    """Adopt what is left, again and again until nobody dies of it."""
    for dies in (plan.recovery_dies, False):
        fuse = Fuse(random, random.randrange(1, 4) if dies else -1)
        with suppress(Crash):
            adopt(root, _delivery(plan, random, root, books, fuse))


def _kept(life: Life) -> Callable[[Position], bool]:
    """Return what says whether a record that was written up to a place is still there."""
    sizes = {number: life.folder.segment(number).stat().st_size for number in life.folder.segments()}
    return lambda behind: sizes.get(behind.segment, 0) >= behind.offset


def _judge(told: Told, events: dict[str, UsageEvent], kept: Callable[[Position], bool]) -> str | None:
    found = events.get(told.attempt.event_id)
    if found is None:
        lost = told.acknowledged or (told.begun is not None and kept(told.begun))
        return f"I1: {told.attempt.event_id} has no event, acknowledged {told.acknowledged}" if lost else None
    if told.event is not None and found == told.event:
        return None
    if told.acknowledged:
        return f"I1: {found.event_id} was settled, and is {found.outcome} in the ledger"
    if found != interrupted(told.attempt, found.completion_tokens):
        return f"I1: {found.event_id} is nothing that was ever written: {found}"
    noted = max((tokens for tokens, behind in told.progress if kept(behind)), default=0)
    if not noted <= found.completion_tokens <= told.tried:
        return f"I1: {found.event_id} has {found.completion_tokens} tokens, and {noted} had been noted"
    return None


def _quarantined(root: Path) -> list[str]:
    """Say what was put aside that is no torn end of a file."""
    path = root / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [f"I12: quarantined: {line[:200]}" for line in lines if json.loads(line)["reason"] != "torn"]


def _adopted_again(root: Path, folder: Folder, books: Ledger, events: dict[str, UsageEvent]) -> list[str]:
    """Adopt the same journal from its beginning once more, which must change nothing."""
    if not folder.done.exists():
        return ["I10: the journal was not finished"]
    before = dict(events)
    folder.done.unlink()
    (folder.path / CURSOR).unlink(missing_ok=True)
    delivery = Delivery(
        sink=books.append, refusal=Refused, quarantine=Quarantine(root), abandoned=Impatient()
    )
    adopt(root, delivery)
    return [] if books.events(before) == before else ["I2: a second adoption changed the ledger"]


@contextmanager
def fresh_databases() -> Iterator[Callable[[], Database]]:
    """Give what makes new SQLite databases, by copying one; disposes of them at the end."""
    opened: list[Database] = []
    with tempfile.TemporaryDirectory(prefix="meter-seeds-") as folder:
        template = Path(folder) / "template.db"
        made = Database(f"sqlite:///{template}")
        bring_up_to_date(made)
        made.checkpoint()
        made.dispose()

        def make() -> Database:
            path = Path(folder) / f"{len(opened)}" / "meter.db"
            path.parent.mkdir()
            shutil.copy(template, path)
            opened.append(Database(f"sqlite:///{path}"))
            return opened[-1]

        try:
            yield make
        finally:
            for database in opened:
                database.dispose()


def violations(seeds: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
    """Run seeds; yields each with what is wrong. One in fifty keeps its ledger in SQLite."""
    logging.disable(logging.ERROR)
    try:
        with fresh_databases() as make:
            for seed in seeds:
                yield seed, run_seed(seed, make() if seed % SEEDS_A_DATABASE == 0 else None)
    finally:
        logging.disable(logging.NOTSET)


def run_seeds(n: int) -> list[Row]:
    """Run so many seeds; returns a row for every experiment, with a sentence for each seed that failed."""
    runs: Counter[str] = Counter()
    failed: dict[str, list[str]] = defaultdict(list)
    for seed, faults in violations(range(n)):
        name = PLANS[seed % len(PLANS)].name
        runs[name] += 1
        failed[name] += faults[:1]
    return [Row(name, "in process", runs[name], tuple(failed[name])) for name in runs]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(run_seeds(int(sys.argv[1])))) + "\n")
