"""F10: a server that gets no more memory is killed by the kernel, and loses nothing."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests import wire
from tests.fake_upstream import Gate
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm
from tests.faults.reconciler import KILLED
from tests.faults.script import CANARY_PROMPT, Plan
from tests.faults.site import Site
from tests.faults.traffic import Got

GROUPS = Path("/sys/fs/cgroup/memory")
# What a server may take beyond what it has at rest.
ROOM_BYTES = 96 << 20
STREAMS = 20
LARGE = 12
LARGE_BYTES = 18_000_000
KILL_SECONDS_MAX = 30.0


def f10(case: Case) -> list[str]:
    """Send more large bodies at once than there is memory for, beside running streams."""
    found: list[str] = []
    with case.site() as site:
        for run in range(case.runs):
            site.start()
            gate = Gate()
            site.script.play(Plan(pieces=40, pause=0.03, before_usage=gate))
            prefix = f"f10-{run}-"
            with _little_memory(case, site):
                gots = asyncio.run(_press(site, prefix))
            gate.open()
            case.notes.append(f"killed by {'the kernel' if _killed_by_kernel(site) else 'the harness'}")
            site.kill()
            site.start()
            found += reconciler.reconcile(site, gots, prefix, KILLED)
            site.end()
        site.start()
        return found + calm(site, "f10c", 0, told=case.full)


def _killed_by_kernel(site: Site) -> bool:
    return site.running.process.poll() == -signal.SIGKILL


@contextmanager
def _little_memory(case: Case, site: Site) -> Iterator[None]:
    """Have the kernel kill the server as soon as it takes too much; where that cannot be, nobody does."""
    group = GROUPS / f"meter-faults-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        limit = site.memory_bytes() + ROOM_BYTES
        (group / "memory.limit_in_bytes").write_text(str(limit))
        with contextlib.suppress(OSError):
            # Where memory is swapped there is a limit for both.
            (group / "memory.memsw.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(site.pid))
    except OSError as fault:
        case.notes.append(f"no memory cgroup can be made ({fault})")
        yield
        return
    try:
        yield
    finally:
        if site.running.process.poll() is None:
            (GROUPS / "cgroup.procs").write_text(str(site.pid))
        _remove(group)


def _remove(group: Path) -> None:
    """Remove a group; the kernel takes a moment to see that the dead have left."""
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


async def _press(site: Site, prefix: str) -> list[Got]:
    models = [f"{prefix}{number}" for number in range(STREAMS)]
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await traffic.until(lambda: site.script.count == STREAMS, "all requests at the upstream")
    large = [f"{prefix}large-{number}" for number in range(LARGE)]
    pressing = [asyncio.create_task(_ask_at_length(site, model)) for model in large]
    with contextlib.suppress(TimeoutError):
        await traffic.until(lambda: _ended(site), "the kernel", KILL_SECONDS_MAX)
    if not _ended(site):
        os.kill(site.pid, signal.SIGKILL)
    return [*await asking, *await asyncio.gather(*pressing)]


def _ended(site: Site) -> bool:
    return site.running.process.poll() is not None


async def _ask_at_length(site: Site, model: str) -> Got:
    """Send a request with a body as large as they may be."""
    got = Got(model)
    parts = urlsplit(site.url)
    messages = [{"role": "user", "content": CANARY_PROMPT + "x" * LARGE_BYTES}]
    body = wire.chat(model=model, messages=messages, stream=True)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(wire.request("POST", "/v1/chat/completions", key=site.key, body=body))
        await writer.drain()
        await traffic.read_all(reader, writer, got)
        writer.close()
    except OSError as fault:
        got.fault = type(fault).__name__
    return got


EXPERIMENTS = (Experiment("F10", f10, 3, 0),)
