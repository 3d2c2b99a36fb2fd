"""F19 to F22: a journal that was cut or damaged, and a disk that is full or broken."""

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from meter.journal.records import Intent, Settle, decode
from meter.journal.segment import Frame, scan
from meter.store.sqlite import writer_lock
from tests.fake_upstream import Gate
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, Skip, calm, failures
from tests.faults.script import Plan
from tests.faults.site import Site

ADOPTION_SECONDS_MAX = 20.0
ROOM = "1m"
UNMOUNT_SECONDS_MAX = 20.0


class Harm(NamedTuple):
    """What was done to a segment: these bytes are gone or wrong."""

    start: int
    end: int
    cut: bool


def f19(case: Case) -> list[str]:
    """Cut a segment of a killed server anywhere: every whole record before the cut is there."""
    return _damaged(case, "f19", _cut_anywhere)


def f20(case: Case) -> list[str]:
    """Flip a bit of a segment of a killed server: every other record is there."""
    return _damaged(case, "f20", _flip_anywhere)


def _cut_anywhere(path: Path, chance: random.Random) -> Harm:
    size = path.stat().st_size
    at = chance.randrange(size)
    os.truncate(path, at)
    return Harm(at, size, cut=True)


def _flip_anywhere(path: Path, chance: random.Random) -> Harm:
    raw = bytearray(path.read_bytes())
    at = chance.randrange(len(raw))
    raw[at] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)
    return Harm(at, at + 1, cut=False)


def _damaged(case: Case, name: str, harm_segment: Callable[[Path, random.Random], Harm]) -> list[str]:
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            prefix = f"{name}-{run}-"
            asyncio.run(_leave_unshipped(site, prefix))
            (segment,) = [path for path in site.segments() if path.stat().st_size]
            frames = [each for each in scan(segment.read_bytes()) if isinstance(each, Frame)]
            harm = harm_segment(segment, case.random(run))
            before = quarantined(site)
            site.start()
            said = _survivors_arrive(site, prefix, frames, harm, segment.parent)
            found += [f"run {run}, {harm}: {each}" for each in said]
            found += _loss_is_said(site, frames, harm, before, run)
        return found + calm(site, name, 0, told=False)


async def _leave_unshipped(site: Site, prefix: str) -> None:
    """Kill a server whose ledger took nothing for a while."""
    gate = Gate()
    site.script.play(lambda model: Plan(pieces=3, pause=0, before_usage=gate if "open" in model else None))
    with ledger_held(site):
        done = [f"{prefix}{number}" for number in range(20)]
        await traffic.all_at_once(site.url, site.key, done)
        left_open = [f"{prefix}open-{number}" for number in range(5)]
        asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, left_open))
        await traffic.until(lambda: site.script.count == 25, "all requests at the upstream")
        await asyncio.to_thread(site.kill)
    gate.open()
    await asking


@contextmanager
def ledger_held(site: Site) -> Iterator[None]:
    """Let nobody write to the ledger."""
    if site.database_url is None:
        with writer_lock(site.data_dir / "meter.db"):
            yield
    else:
        # The transaction, and with it the lock, ends with the connection.
        with closing(psycopg.connect(site.database_url)) as connection:
            connection.execute("LOCK TABLE usage_events IN EXCLUSIVE MODE")
            yield


def _survivors_arrive(site: Site, prefix: str, frames: list[Frame], harm: Harm, folder: Path) -> list[str]:
    whole = [decode(each.payload) for each in frames if each.end <= harm.start or each.start >= harm.end]
    settled = {record.event.event_id for record in whole if isinstance(record, Settle)}
    began = {record.attempt.event_id for record in whole if isinstance(record, Intent)}
    deadline = time.monotonic() + ADOPTION_SECONDS_MAX
    while not (folder / "done").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    events = [event for each in site.events(prefix).values() for event in each]
    ids = {event.event_id for event in events}
    interrupted = {event.event_id for event in events if event.outcome == "interrupted"}
    found = [] if (folder / "done").exists() else ["I10: the journal is not adopted"]
    if ids != settled | began:
        found.append(f"I1: {len(settled | began)} records are whole, {len(ids)} events arrived")
    if interrupted != began - settled:
        found.append(f"I1: {len(began - settled)} are left open, {len(interrupted)} are interrupted")
    return found


def _loss_is_said(site: Site, frames: list[Frame], harm: Harm, before: int, run: int) -> list[str]:
    at_edge = harm.cut and any(harm.start in {each.start, each.end} for each in frames)
    said = quarantined(site) - before
    if said or at_edge:
        return []
    return [f"run {run}, {harm}: I12: nothing is said of what was lost"]


def quarantined(site: Site) -> int:
    """Count what a site's servers could not ship."""
    path = site.data_dir / "journal" / "quarantine.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Mount a file system, by arguments of `mount`, on a folder that only its owner may enter."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise Skip("mounting a file system needs root and mount")
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"a file system cannot be mounted: {done.stderr.strip()}")
    try:
        folder.chmod(0o700)
        yield
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + UNMOUNT_SECONDS_MAX
    while subprocess.run(["umount", folder], stderr=subprocess.DEVNULL, check=False).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", folder], check=False)
            raise TimeoutError(f"somebody still uses {folder}")
        time.sleep(0.05)


def small_disk(folder: Path, room: str) -> AbstractContextManager[None]:
    """Mount a file system of this size."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={room}", "tmpfs")


def fill(path: Path) -> None:
    """Write a file that leaves no room on its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def f21(case: Case) -> list[str]:
    """Fill the journal's disk under running requests, and make room again."""
    found: list[str] = []
    with case.site() as site, small_disk(site.data_dir / "journal", ROOM):
        try:
            site.start()
            for run in range(case.runs):
                found += asyncio.run(_fill_and_empty(site, f"f21-{run}-"))
            found += calm(site, "f21c", told=case.full)
        finally:
            site.close()
    return found


async def _fill_and_empty(site: Site, prefix: str) -> list[str]:
    gate = Gate()
    site.script.play(lambda model: Plan(pieces=5, pause=0.01, before_usage=gate if "open" in model else None))
    models = [f"{prefix}open-{number}" for number in range(20)]
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await traffic.until(lambda: site.script.count == len(models), "all requests at the upstream")
    ballast = site.data_dir / "journal" / "ballast"
    fill(ballast)
    refused = [await traffic.ask(site.url, site.key, f"{prefix}full-{number}") for number in range(60)]
    found = [] if refused[-1].status == 503 else [f"I6: a full disk answers {refused[-1].status}"]
    gate.open()
    gots = await asking
    found += failures(gots, "running requests on a full disk")
    ballast.unlink()
    began = time.monotonic()
    while (await traffic.ask(site.url, site.key, f"{prefix}room-{time.monotonic_ns()}")).status != 200:
        if time.monotonic() - began > 10:
            return [*found, "I10: requests are still refused 10 s after there was room again"]
        await asyncio.sleep(0.05)
    return found + await asyncio.to_thread(reconciler.reconcile, site, [*gots, *refused], prefix)


def f22(case: Case) -> list[str]:
    """Have `fdatasync` fail now and then, under load."""
    if shutil.which("strace") is None:
        raise Skip("strace is not installed")
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            found += asyncio.run(_failing_syncs(site, f"f22-{run}"))
        if "could not be synced" not in site.log:
            raise Skip("strace made no sync of the journal fail (is ptrace allowed?)")
        return found + calm(site, "f22c", told=case.full)


async def _failing_syncs(site: Site, prefix: str) -> list[str]:
    site.script.play(Plan(pieces=3, pause=0.005))
    loading = asyncio.create_task(traffic.load(site.url, site.key, prefix, clients=20, seconds=3))
    await asyncio.sleep(0.5)
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(site.pid)),
        *("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1+3"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(1.5)
    if tracer.returncode is None:
        tracer.terminate()
    await tracer.wait()
    gots = await loading
    found = failures(gots, "requests while syncs fail")
    return found + await asyncio.to_thread(reconciler.reconcile, site, gots, prefix)


EXPERIMENTS = (
    Experiment("F19", f19, 40, 1),
    Experiment("F20", f20, 40, 1),
    Experiment("F21", f21, 3, 1),
    Experiment("F22", f22, 2, 0),
)
