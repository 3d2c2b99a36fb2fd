"""F60 to F63: clients that leave at every moment, all at once, by halves, or read slowly."""

import asyncio
import time
from functools import partial
from urllib.parse import urlsplit

from meter.core.events import Outcome
from tests.fake_upstream import Gate
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures
from tests.faults.script import CONTENT, Plan
from tests.faults.site import Site
from tests.faults.traffic import Got

GRACE_SECONDS = 0.3
# With events of 64 KiB it levels off at 3.4 MiB, however long they are read slowly.
BYTES_PER_STREAM_MAX = 4 << 20
NEXT_SECONDS_MAX = 1.0
STREAMS_SECONDS_MAX = 30.0


async def _leave_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _got: Got) -> None:
    await asyncio.sleep(0)


async def _leave_after(
    seconds: float, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _got: Got
) -> None:
    await asyncio.sleep(seconds)


async def _leave_at(
    mark: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, got: Got
) -> None:
    """Read until something has come, and leave."""
    while mark not in got.raw and (data := await reader.read(traffic.READ_BYTES)):
        got.raw += data
        got.pieces.append((time.monotonic(), len(got.raw)))


async def _send_part(site: Site, model: str, length: int) -> None:
    """Send the beginning of a request, and leave."""
    parts = urlsplit(site.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(traffic.request(site.key, model)[:length])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()


def f60(case: Case) -> list[str]:
    """Leave within the headers, the body, before the answer, in the stream, at the usage, and at the end."""
    found: list[str] = []
    with case.site(hangup_grace_seconds=GRACE_SECONDS) as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            gate = Gate()
            prefix = f"f60-{run}-"
            # A stream that is asked to wait does so until the end of this run.
            site.script.play(
                lambda model, gate=gate: Plan(  # type: ignore[misc]
                    pieces=10, pause=0.01, before_head=gate if "-head-" in model else None
                )
            )
            gots = asyncio.run(_leave_in_phases(site, prefix))
            gate.open()
            found += reconciler.reconcile(site, gots, prefix, reconciler.LEFT)
            found += _outcomes(site, prefix)
            unsent = sum(map(len, site.events(prefix).values())) - site.script.count
            case.notes.append(f"{unsent} left before their request was sent")
            settled += sum(map(len, site.events(prefix).values()))
        return found + calm(site, "f60c", settled, told=case.full)


async def _leave_in_phases(site: Site, prefix: str) -> list[Got]:
    whole = len(traffic.request(site.key, f"{prefix}part"))
    await asyncio.gather(
        *(_send_part(site, f"{prefix}part-{cut}", cut) for cut in (1, 60, whole - 30, whole - 1))
    )
    phases: dict[str, traffic.Reader] = {
        "at-once": _leave_at_once,
        "connecting": partial(_leave_after, 0.002),
        "head-": partial(_leave_after, 0.1),
        "headers": partial(_leave_at, b"\r\n\r\n"),
        "middle": partial(_leave_at, CONTENT),
        "usage": partial(_leave_at, b'"usage"'),
        "done": partial(_leave_at, b"[DONE]"),
    }
    asking = [
        traffic.all_at_once(site.url, site.key, [f"{prefix}{name}-{n}" for n in range(10)], read=read)
        for name, read in phases.items()
    ]
    return [got for gots in await asyncio.gather(*asking) for got in gots]


def _outcomes(site: Site, prefix: str) -> list[str]:
    allowed = {Outcome.CLIENT_CLOSED, Outcome.OK}
    return [
        f"F60: {event.model_requested} is {event.outcome}/{event.usage_source}"
        for found in site.events(prefix).values()
        for event in found
        if event.outcome not in allowed
    ]


def f61(case: Case) -> list[str]:
    """Have 500 clients hang up at once: the next request is answered within a second."""
    found: list[str] = []
    count = 500 if case.full else 150
    with case.site(hangup_grace_seconds=GRACE_SECONDS) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(lambda model: Plan(pieces=200 if "next" not in model else 1, pause=0.25))
            gots, following = asyncio.run(_hang_up_together(site, f"f61-{run}-", count))
            seconds = following.seconds_to_first
            case.notes.append(f"the next request took {seconds * 1000:.0f} ms")
            found += failures([following], "the request after the hang-ups")
            found += [] if seconds < NEXT_SECONDS_MAX else [f"I6: the next request took {seconds:.1f} s"]
            found += reconciler.reconcile(site, [*gots, following], f"f61-{run}-")
        return found + calm(site, "f61c", (count + 1) * case.runs, told=case.full)


async def _hang_up_together(site: Site, prefix: str, count: int) -> tuple[list[Got], Got]:
    leave = asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: Got) -> None:
        reading = asyncio.create_task(traffic.read_all(reader, writer, got))
        await leave.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    models = [f"{prefix}{number}" for number in range(count)]
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models, read=read))
    try:
        await traffic.until(lambda: site.script.count >= count * 0.95, "the streams", STREAMS_SECONDS_MAX)
    except TimeoutError:
        leave.set()
        await asking
        raise
    await asyncio.sleep(0.3)
    leave.set()
    following = await traffic.ask(site.url, site.key, f"{prefix}next")
    return await asking, following


def f62(case: Case) -> list[str]:
    """Close the sending half and read: the whole answer comes."""
    found: list[str] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: Got) -> None:
        writer.write_eof()
        await traffic.read_all(reader, writer, got)

    with case.site() as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=10, pause=0.02))
            models = [f"f62-{run}-{number}" for number in range(10)]
            gots = asyncio.run(traffic.all_at_once(site.url, site.key, models, read=read))
            found += failures(gots, "clients that closed their sending half")
            found += reconciler.reconcile(site, gots, f"f62-{run}-")
            settled += sum(map(len, site.events(f"f62-{run}-").values()))
        return found + calm(site, "f62c", settled, told=case.full)


def f63(case: Case) -> list[str]:
    """Have 100 clients read 1 kB a second of streams of megabytes: the memory stays bounded."""
    found: list[str] = []
    count, seconds = 100, 8.0 if case.full else 2.0
    with case.site(hangup_grace_seconds=GRACE_SECONDS) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=200, pause=0, filler=1 << 16))
            before = site.memory_bytes()
            gots, most = asyncio.run(_read_slowly(site, f"f63-{run}-", count, seconds))
            grown = most - before
            case.notes.append(f"{grown / count / 1024:.0f} KiB a stream")
            if grown > count * BYTES_PER_STREAM_MAX:
                found.append(f"I7: {count} slow readers made the server grow by {grown >> 20} MiB")
            found += reconciler.reconcile(site, gots, f"f63-{run}-")
        return found + calm(site, "f63c", count * case.runs, told=case.full)


async def _read_slowly(site: Site, prefix: str, count: int, seconds: float) -> tuple[list[Got], int]:
    async def read(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, got: Got) -> None:
        for _ in range(int(seconds)):
            got.raw += await reader.read(1024)
            got.pieces.append((time.monotonic(), len(got.raw)))
            await asyncio.sleep(1)

    models = [f"{prefix}{number}" for number in range(count)]
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models, read=read))
    most = 0
    while not asking.done():
        most = max(most, site.memory_bytes())
        await asyncio.sleep(0.1)
    return await asking, most


EXPERIMENTS = (
    Experiment("F60", f60, 5, 1, postgresql_runs=1),
    Experiment("F61", f61, 3, 1, postgresql_runs=1),
    Experiment("F62", f62, 1, 0),
    Experiment("F63", f63, 1, 0),
)
