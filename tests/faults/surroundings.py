"""F64, F66, F67, F75, F76, F78: slow, endless and repeated requests, no CPU, no log, and many scrapes."""

import asyncio
import contextlib
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests import server, wire
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures
from tests.faults.reconciler import KILLED
from tests.faults.script import CANARY_CREDENTIAL, Plan
from tests.faults.site import POSTGRESQL, Site
from tests.faults.workers import command_of
from tests.server import NO_TLS

HEADERS_SECONDS = 1.0
BODY_IDLE_SECONDS = 1.0
BODY_SECONDS = 3.0
SENDERS = 50
NORMAL_MS_MAX = 1000.0
BODY_BYTES_MAX = 1_000_000
AT_ONCE = 50
SAME = 5
SPINNING = 4
SCRAPERS = 50
REQUESTS = 40
F_SETPIPE_SZ = 1031


def f64(case: Case) -> list[str]:
    """Have clients send headers or bodies a byte at a time: they get 408, and others their answers."""
    found: list[str] = []
    limits: dict[str, object] = {
        "client_headers_timeout_seconds": HEADERS_SECONDS,
        "client_body_idle_seconds": BODY_IDLE_SECONDS,
        "client_body_timeout_seconds": BODY_SECONDS,
    }
    with case.site(None, **limits) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            statuses, gots = asyncio.run(_send_slowly(site, f"f64-{run}-"))
            found += [] if set(statuses) <= {408} else [f"F64: slow senders got {sorted(set(statuses))}"]
            found += failures(gots, "requests beside slow senders")
            slowest = max(got.seconds_to_first for got in gots) * 1000
            case.notes.append(
                f"{len(statuses)} slow senders, the slowest of {len(gots)} others {slowest:.0f} ms"
            )
            found += [] if slowest < NORMAL_MS_MAX else [f"I8: a normal request took {slowest:.0f} ms"]
            found += reconciler.reconcile(site, gots, f"f64-{run}-")
        return found + calm(site, "f64c", told=case.full)


async def _send_slowly(site: Site, prefix: str) -> tuple[list[int], list[traffic.Got]]:
    whole = traffic.request(site.key, f"{prefix}slow", stream=False)
    head = whole.index(b"\r\n\r\n") + 4
    done = asyncio.Event()
    sending = [
        asyncio.create_task(_trickle(site, whole, head if number % 2 else 0)) for number in range(SENDERS)
    ]
    gots: list[traffic.Got] = []

    async def others() -> None:
        while not done.is_set():
            gots.append(await traffic.ask(site.url, site.key, f"{prefix}{len(gots)}", stream=False))
            await asyncio.sleep(0.02)

    asking = asyncio.create_task(others())
    statuses = await asyncio.gather(*sending)
    done.set()
    await asking
    return list(statuses), gots


async def _trickle(site: Site, whole: bytes, at_once: int) -> int:
    """Send the beginning, and the rest a byte at a time, until an answer comes; returns its status."""
    url = httpx.URL(site.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    answer = asyncio.create_task(reader.read(1000))
    writer.write(whole[:at_once])
    for at in range(at_once, len(whole)):
        with contextlib.suppress(OSError):
            writer.write(whole[at : at + 1])
        done, _ = await asyncio.wait([answer], timeout=BODY_IDLE_SECONDS / 4)
        if done:
            break
    got = await answer
    writer.close()
    return int(got.split(b" ")[1]) if got else 0


def f66(case: Case) -> list[str]:
    """Send what is too large, with its length and without, and what has no end: nothing goes upstream."""
    found: list[str] = []
    limits: dict[str, object] = {
        "body_bytes_max": BODY_BYTES_MAX,
        "client_body_idle_seconds": BODY_IDLE_SECONDS,
    }
    with case.site(None, **limits) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan())
            large = b"x" * (BODY_BYTES_MAX + 1)
            known = wire.post(site.url, site.key, large).status
            chunks = b"%x\r\n%s\r\n" % (len(large), large)
            unknown = _chunked(site, chunks + b"0\r\n\r\n")
            endless = _chunked(site, chunks[:100])
            case.notes.append(f"{known}, {unknown}, {endless}")
            if (known, unknown, endless) != (413, 413, 408):
                found.append(f"F66: the answers are {known}, {unknown} and {endless}")
            found += (
                [] if site.script.count == 0 else [f"I11: {site.script.count} requests went upstream: {run}"]
            )
        return found + calm(site, "f66c", told=case.full)


def _chunked(site: Site, body: bytes) -> int:
    head = wire.request(
        "POST", "/v1/chat/completions", key=site.key, headers=[("Transfer-Encoding", "chunked")]
    )
    with wire.connected(site.url) as connection:
        with contextlib.suppress(OSError):
            connection.send(head + body)
        return wire.parse(connection.read_to_end()).status


def f67(case: Case) -> list[str]:
    """Repeat requests with the same Idempotency-Key: each one that reaches the upstream is an event."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            model = f"f67-{run}-same"
            body = wire.chat(model=model)
            answers = [
                wire.post(site.url, site.key, body, headers=[("Idempotency-Key", "the-same")])
                for _ in range(SAME)
            ]
            events = reconciler.settled(site, model, SAME)
            keys = {each.header("idempotency-key") for each in site.script.upstream.received}
            ids = {answer.header("x-meter-request-id") for answer in answers}
            counts = (len(events), site.script.count, len(ids))
            found += [] if counts == (SAME, SAME, SAME) else [f"I1: events, attempts, ids: {counts}"]
            found += [] if keys == {"the-same"} else [f"I3: the upstream got the keys {keys}"]
        return found + calm(site, "f67c", told=case.full)


def _spin() -> None:
    while True:
        pass


def f75(case: Case) -> list[str]:
    """Give the server a share of one CPU beside busy programs: nothing times out, and all is settled."""
    found: list[str] = []
    cpu = min(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with case.site() as site:
        site.start()
        for pid in _threads(site.pid):
            os.sched_setaffinity(pid, {cpu})
        busy = [context.Process(target=_spin, daemon=True) for _ in range(SPINNING)]
        for each in busy:
            each.start()
            os.sched_setaffinity(each.pid or 0, {cpu})
        try:
            for run in range(case.runs):
                site.script.play(Plan(pieces=10, pause=0.02))
                models = [f"f75-{run}-{number}" for number in range(AT_ONCE)]
                gots = asyncio.run(traffic.all_at_once(site.url, site.key, models))
                case.notes.append(f"the slowest first byte {max(got.seconds_to_first for got in gots):.1f} s")
                found += failures(gots, "streams of a starved server")
                found += reconciler.reconcile(site, gots, f"f75-{run}-")
        finally:
            for each in busy:
                each.kill()
                each.join()
        return found + calm(site, "f75c", AT_ONCE * case.runs, told=case.full)


def _threads(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


def f76(case: Case) -> list[str]:
    """Fill the pipe of the log, which nobody reads: every request is answered, counted and settled."""
    found: list[str] = []
    with case.site(access_log="on") as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            with _unread(site) as url:
                models = [f"f76-{run}-{number}" for number in range(REQUESTS * 5)]
                gots = asyncio.run(traffic.all_at_once(url, site.key, models, stream=False))
                found += failures(gots, "requests while nobody read the log")
            site.start()
            found += reconciler.reconcile(site, gots, f"f76-{run}-")
        return found + calm(site, "f76c", told=case.full)


@contextmanager
def _unread(site: Site) -> Iterator[str]:
    """Run a server on the site's data whose log goes into a full pipe; yields its URL."""
    site.end()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    given: dict[str, object] = {
        "upstream_url": site.script.upstream.url,
        "upstream_api_key": CANARY_CREDENTIAL,
        "access_log": "on",
    }
    given |= {} if site.database_url is None else {"database_url": site.database_url}
    env = server.environment(site.data_dir, **(given | site.settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "meter", "serve", "--port", "0", "--admin-port", "0"],
        env=env,
        cwd=site.data_dir.parent,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    try:
        assert process.stdout is not None
        told = ""
        while (found := re.search(r"proxy +(http://.+/v1)\n", told)) is None:
            line = process.stdout.readline()
            assert line, "the server did not start"
            told += line
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        os.close(reading)


def f78(case: Case) -> list[str]:
    """Scrape with fifty clients while workers die and come back: no counter ever goes back."""
    found: list[str] = []
    with case.site(workers=2) as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=2, pause=0.01))
            gots, back, scrapes = asyncio.run(_scrape_and_kill(site, f"f78-{run}-"))
            case.notes.append(f"{scrapes} scrapes, {len(gots)} requests")
            found += back
            found += [] if scrapes > SCRAPERS else ["F78: nobody scraped: the experiment shows nothing"]
            found += reconciler.reconcile(site, gots, f"f78-{run}-", KILLED)
        return found + calm(site, "f78c", told=case.full)


async def _scrape_and_kill(site: Site, prefix: str) -> tuple[list[traffic.Got], list[str], int]:
    done = asyncio.Event()
    headers = {"authorization": f"Bearer {site.running.admin_token}"}
    back: list[str] = []
    scrapes = 0

    async def scrape(client: httpx.AsyncClient) -> None:
        nonlocal scrapes
        last: dict[str, float] = {}
        while not done.is_set():
            with contextlib.suppress(httpx.TransportError):
                page = (await client.get("/metrics")).text
                found = _counters(page)
                back.extend(
                    f"I5: {name} went back" for name, value in last.items() if found.get(name, 0) < value
                )
                last = found
                scrapes += 1
            await asyncio.sleep(0.05)

    limits = httpx.Limits(max_connections=SCRAPERS)
    async with httpx.AsyncClient(
        base_url=site.running.control_url,
        headers=headers,
        trust_env=False,
        verify=NO_TLS,
        limits=limits,
        timeout=30,
    ) as client:
        scraping = [asyncio.create_task(scrape(client)) for _ in range(SCRAPERS)]
        loading = asyncio.create_task(
            traffic.load(site.url, site.key, prefix, clients=4, seconds=6, pause=0.02)
        )
        for _ in range(3):
            await asyncio.sleep(1.5)
            for pid in _children(site)[:1]:
                os.kill(pid, signal.SIGKILL)
        gots = await loading
        done.set()
        await asyncio.gather(*scraping)
    return gots, sorted(set(back))[:5], scrapes


def _children(site: Site) -> list[int]:
    children = Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"data-" in command_of(pid)]


def _counters(page: str) -> dict[str, float]:
    """Return the counters of a page, by name and labels; a counter says by its name that it is one."""
    lines = re.findall(r"^(meter_\w+_total(?:\{[^}]*\})?) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in lines}


EXPERIMENTS = (
    Experiment("F64", f64, 2, 1, postgresql_runs=1),
    Experiment("F66", f66, 3, 1, postgresql_runs=1),
    Experiment("F67", f67, 3, 1, postgresql_runs=1),
    Experiment("F75", f75, 3, 0, postgresql_runs=1),
    Experiment("F76", f76, 2, 0, postgresql_runs=1),
    Experiment("F78", f78, 3, 0, databases=(POSTGRESQL,)),
)
