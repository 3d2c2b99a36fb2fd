"""F18: the power goes, and with it everything that was never synced.

The data directory is a file system of its own in a file. When all threads of a server stand still, that file
is copied: it has what the kernel was made to write, and nothing that only its memory held. The copy is what
the next server finds.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meter.core.events import UsageSource
from meter.store import ledger
from tests.faults import traffic
from tests.faults.case import Case, Experiment, Skip, calm
from tests.faults.damage import mounted
from tests.faults.script import PROMPT_TOKENS, Plan
from tests.faults.signals import all_adopted
from tests.faults.site import Site
from tests.faults.traffic import Got

IMAGE_BYTES = 64 << 20
# Nothing reaches the disk by the kernel's own timer, or by its guess at what a rename is for.
MOUNT_OPTIONS = "loop,commit=300,noauto_da_alloc"
CLIENTS = 20
AFTER_SECONDS_MAX = 1.5
STILL_SECONDS_MAX = 30.0


class _Disk:
    """A file system in a file."""

    def __init__(self, folder: Path, mounted_at: Path) -> None:
        self._image = folder / "disk"
        self._kept = folder / "kept"
        self._mounted_at = mounted_at
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)

    @contextmanager
    def used_by(self, site: Site) -> Iterator[None]:
        """Have a site's data on it; in the end nothing of the site's runs."""
        with mounted(self._mounted_at, "-o", MOUNT_OPTIONS, str(self._image)):
            try:
                yield
            finally:
                site.close()

    def keep(self) -> None:
        """Copy what is on the disk at this moment."""
        subprocess.run(["cp", "--sparse=always", self._image, self._kept], check=True)

    def lose_the_rest(self) -> None:
        """Have nothing but what was kept."""
        self._kept.replace(self._image)


def f18(case: Case) -> list[str]:
    """Cut the power under load: every event whose client saw the end of its answer is there afterwards."""
    if shutil.which("mkfs.ext4") is None:
        raise Skip("a disk that can be cut off needs mkfs.ext4")
    found: list[str] = []
    gots: list[Got] = []
    with case.site(durability="power") as site, tempfile.TemporaryDirectory(prefix="meter-disk-") as folder:
        disk = _Disk(Path(folder), site.data_dir)
        for run in range(case.runs):
            with disk.used_by(site):
                found += _found_again(case, site, gots, run - 1) if run else _first_start(site)
                gots = asyncio.run(_load_and_cut(site, disk, case, run))
            disk.lose_the_rest()
        with disk.used_by(site):
            found += _found_again(case, site, gots, case.runs - 1)
            return found + calm(site, "f18c", 0, told=case.full)


async def _load_and_cut(site: Site, disk: _Disk, case: Case, run: int) -> list[Got]:
    after = case.random(run).uniform(0.1, AFTER_SECONDS_MAX)
    site.script.play(lambda model: Plan(pieces=3, pause=0.01, streams="stream" in model))
    first = await traffic.ask(site.url, site.key, f"f18-{run}-first-stream")
    loading = [
        asyncio.create_task(
            traffic.load(
                *(site.url, site.key, f"f18-{run}-{kind}"),
                clients=CLIENTS // 2,
                seconds=after + 0.1,
                stream=kind == "stream",
            )
        )
        for kind in ("stream", "whole")
    ]
    await asyncio.sleep(after)
    await asyncio.to_thread(_stand_still, site.pid)
    await asyncio.to_thread(disk.keep)
    await asyncio.to_thread(site.kill)
    gots = [got for loaded in await asyncio.gather(*loading) for got in loaded]
    return [first, *(got for got in gots if not got.refused)]


def _stand_still(pid: int) -> None:
    """Stop a process, and wait until no thread of its does anything any more, in the kernel either."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STILL_SECONDS_MAX
    while not all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise TimeoutError("the server does not stop")
        time.sleep(0.001)


def _is_stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def _first_start(site: Site) -> list[str]:
    site.start()
    return []


def _found_again(case: Case, site: Site, gots: list[Got], run: int) -> list[str]:
    """Start the next server, and compare what clients saw, and the upstream, with the ledger."""
    prefix = f"f18-{run}-"
    cut = site.journals()
    site.start()
    adopted = all_adopted(cut)
    events, truths = site.events(prefix), site.script.truths()
    acknowledged = [got for got in gots if got.status == 200 and got.whole]
    last_began = max((got.began for got in acknowledged), default=0.0)
    # A settle that was synced took along all that stood before it.
    synced = {model for model, sent in truths.items() if sent[0].sent_at and sent[0].sent_at[0] < last_began}
    missing = sorted(synced - events.keys())
    found = [f"I1: {model} began before an event that was acknowledged, and has none" for model in missing]
    for got in acknowledged:
        kinds = [(event.usage_source, event.prompt_tokens) for event in events.get(got.model, [])]
        if kinds != [(UsageSource.REPORTED, PROMPT_TOKENS)]:
            found.append(f"I1: {got.model} was acknowledged before the power cut, and its events are {kinds}")
    twice = [model for model, each in events.items() if len(each) > 1]
    found += [f"I2: {model} has two events" for model in twice]
    found += [f"I2/P7: {mismatch}" for mismatch in ledger.verify(site.database)[:5]]
    lost = len(truths.keys() - events.keys())
    case.notes.append(f"{len(acknowledged)} acknowledged, {lost} that had just begun are gone")
    found += [] if acknowledged else ["nothing was acknowledged: the experiment shows nothing"]
    return adopted + [f"run {run}: {each}" for each in found]


EXPERIMENTS = (Experiment("F18", f18, 10, 0, postgresql_runs=5),)
