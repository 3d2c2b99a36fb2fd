"""F37 to F41: SQLite's file is locked, taken away, damaged, or copied."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests import server
from tests.faults import damage, reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures, p99_ms
from tests.faults.script import Plan
from tests.faults.site import SQLITE, Site
from tests.faults.traffic import Got

ON = (SQLITE,)
ALARM_SECONDS_MAX = 15.0
PAGE_BYTES = 4096


async def _beside(site: Site, prefix: str, seconds: float, act: Callable[[], None]) -> list[Got]:
    loading = asyncio.create_task(
        traffic.load(site.url, site.key, prefix, clients=8, seconds=seconds, stream=False, pause=0.02)
    )
    await asyncio.sleep(0.5)
    await asyncio.to_thread(act)
    return await loading


def f37(case: Case) -> list[str]:
    """Lock the database file for some seconds: requests go on, and are in the ledger afterwards."""
    found: list[str] = []
    seconds = 30.0 if case.full else 3.0
    with case.site() as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))

            def lock(site: Site = site) -> None:
                with closing(sqlite3.connect(site.data_dir / "meter.db", isolation_level=None)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    time.sleep(seconds)
                    other.execute("ROLLBACK")

            gots = asyncio.run(_beside(site, f"f37-{run}", seconds + 1, lock))
            found += failures(gots, "requests while SQLite was locked")
            found += reconciler.reconcile(site, gots, f"f37-{run}-")
            case.notes.append(f"{len(gots)} requests, p99 {p99_ms(gots):.0f} ms")
            settled += len(gots)
        return found + calm(site, "f37c", settled, told=case.full)


def f38(case: Case) -> list[str]:
    """Take the database file away while a server has it open: nothing goes to a file without a name."""
    found: list[str] = []
    for run in range(case.runs):
        with case.site() as site:
            site.start()
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            before = asyncio.run(traffic.all_at_once(site.url, site.key, ["f38-before"], stream=False))
            found += reconciler.reconcile(site, before, "f38-")
            files = [path for path in site.data_dir.iterdir() if path.name.startswith("meter.db")]
            log_before = len(site.log)
            for path in files:
                path.unlink()
            gots = asyncio.run(
                traffic.all_at_once(site.url, site.key, [f"f38-{run}-{n}" for n in range(10)], stream=False)
            )
            found += failures(gots, "requests without the database's file")
            time.sleep(ALARM_SECONDS_MAX)
            said = any(word in site.log[log_before:] for word in ('"warning"', '"error"'))
            found += [] if said else ["F38: the file is gone for 15 s, and the log says nothing"]
            site.end()
            # This process, too, still has the old file open.
            site.reopen()
            try:
                site.start()
            except AssertionError as fault:
                found.append(f"F38: no start after the file was taken away: {str(fault)[-200:]!r}")
                continue
            deadline = time.monotonic() + ALARM_SECONDS_MAX
            while len(site.events(f"f38-{run}-")) < len(gots) and time.monotonic() < deadline:
                time.sleep(0.1)
            arrived = len(site.events(f"f38-{run}-"))
            if arrived < len(gots):
                found.append(
                    f"I1: of {len(gots)} requests after the file was taken away, {arrived} have events"
                )
    return found


def f39(case: Case) -> list[str]:
    """Damage a killed server's database: the next start says what to do, and the journal has the rest."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f39-{run}-"
            gots = [asyncio.run(traffic.ask(site.url, site.key, f"{prefix}shipped", stream=False))]
            found += reconciler.reconcile(site, gots, prefix)
            with damage.ledger_held(site):
                models = [f"{prefix}{number}" for number in range(50)]
                gots += asyncio.run(traffic.all_at_once(site.url, site.key, models, stream=False))
                site.kill()
            site.reopen()
            found += _refused_and_recovered(site, case.random(run))
            found += reconciler.reconcile(site, gots, prefix)
        return found + calm(site, "f39c", 0, told=case.full)


def _refused_and_recovered(site: Site, chance: random.Random) -> list[str]:
    """Damage a page, start in vain, put a copy in its place, and start again."""
    path = site.data_dir / "meter.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    healthy = path.read_bytes()
    page = chance.choice([0, *_used_pages(path)])
    damaged = bytearray(healthy)
    damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = chance.randbytes(PAGE_BYTES)
    path.write_bytes(damaged)
    before = {each: each.read_bytes() for each in site.segments()}
    found = []
    try:
        site.start()
        site.kill()
        found.append(f"F39: a server started with page {page} damaged")
    except AssertionError as fault:
        said = ("is damaged", "backup", str(site.data_dir / "journal"))
        found += [] if all(each in str(fault) for each in said) else [f"F39: it says {str(fault)[-300:]}"]
    if {each: each.read_bytes() for each in site.segments()} != before or not any(before.values()):
        found.append("F39: the journal is not what it was")
    path.write_bytes(healthy)
    site.start()
    return found


def _used_pages(path: Path) -> list[int]:
    """Return the first pages of tables and indexes."""
    with closing(sqlite3.connect(path)) as other:
        return [row[0] - 1 for row in other.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 1")]


def f41(case: Case) -> list[str]:
    """Copy the database with VACUUM INTO under load: the copy passes `meter verify`."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            folder = site.data_dir.parent / f"copy-{run}"
            folder.mkdir(mode=0o700)

            def copy(site: Site = site, target: str = str(folder / "meter.db")) -> None:
                with closing(sqlite3.connect(site.data_dir / "meter.db", isolation_level=None)) as other:
                    other.execute("VACUUM INTO ?", (target,))

            gots = asyncio.run(_beside(site, f"f41-{run}", 1.5, copy))
            found += failures(gots, "requests while the database was copied")
            done = subprocess.run(
                [sys.executable, "-m", "meter", "verify"],
                env=server.environment(folder),
                cwd=site.data_dir.parent,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            found += [] if done.stdout.strip() == "ok" else [f"F41: {done.stdout}{done.stderr}"]
            found += reconciler.reconcile(site, gots, f"f41-{run}-")
            settled += len(gots)
            shutil.rmtree(folder)
        return found + calm(site, "f41c", settled, told=case.full)


EXPERIMENTS = (
    Experiment("F37", f37, 1, 1, databases=ON),
    Experiment("F38", f38, 1, 0, databases=ON),
    Experiment("F39", f39, 5, 0, databases=ON),
    Experiment("F41", f41, 5, 0, databases=ON),
)
