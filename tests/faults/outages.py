"""F25 to F30: PostgreSQL is away, hangs, takes no writes, or loses connections at the worst moment."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import closing

import httpx
import psycopg

from meter.datadir import GRANTS_FILE
from tests import services, wire
from tests.faults import cutter, reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures, p99_ms
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, Site
from tests.faults.traffic import Got

CLIENTS = 8
SLOW_SECONDS = 0.25
BEFORE_SECONDS = 2.0
AFTER_SECONDS = 2.0
# Where a database hangs, the first request after a pause finds out.
ADDED_MS_MAX = 400.0
CLOSING_SECONDS_MAX = 30.0
ON = (POSTGRESQL,)


def f26(case: Case) -> list[str]:
    """Stop PostgreSQL under load, and start it again."""
    return _away(case, "f26", lambda cluster: cluster.stop(), lambda cluster: cluster.start())


def f28(case: Case) -> list[str]:
    """Pause PostgreSQL under load: its ports are open, and nothing answers."""
    return _away(case, "f28", lambda cluster: cluster.pause(), lambda cluster: cluster.resume())


def f30(case: Case) -> list[str]:
    """Make PostgreSQL read-only under load."""

    def writable(cluster: services.Cluster, value: str) -> None:
        with closing(psycopg.connect(cluster.url, autocommit=True)) as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            connection.execute(b"SELECT pg_reload_conf()")

    return _away(
        case,
        "f30",
        lambda cluster: writable(cluster, "on"),
        lambda cluster: writable(cluster, "off"),
        reads=True,
    )


def _away(
    case: Case,
    name: str,
    leave: Callable[[services.Cluster], None],
    come_back: Callable[[services.Cluster], None],
    *,
    reads: bool = False,
) -> list[str]:
    seconds = 60.0 if case.full else 5.0
    found: list[str] = []
    with services.cluster() as cluster, case.site(cluster.url) as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"{name}-{run}-"
            total = BEFORE_SECONDS + seconds + AFTER_SECONDS

            async def act(prefix: str = prefix, total: float = total) -> tuple[list[Got], list[str]]:
                loading = asyncio.create_task(_load(site, prefix, total))
                await asyncio.sleep(BEFORE_SECONDS)
                left_at = time.monotonic()
                await asyncio.to_thread(leave, cluster)
                try:
                    said = await _while_away(site, left_at + seconds, reads=reads)
                finally:
                    await asyncio.to_thread(come_back, cluster)
                case.notes.append(f"away {time.monotonic() - left_at:.1f} s")
                return await loading, [*said, *_added(case, await loading, left_at, left_at + seconds)]

            gots, said = asyncio.run(act())
            back_at = time.monotonic()
            found += said + failures(gots, "requests while PostgreSQL was away")
            found += reconciler.reconcile(site, gots, prefix)
            case.notes.append(f"{len(gots)} requests, drained {time.monotonic() - back_at:.1f} s after")
            settled += len(gots)
        return found + calm(site, f"{name}c", settled)


async def _load(site: Site, prefix: str, seconds: float) -> list[Got]:
    return await traffic.load(
        site.url, site.key, prefix, clients=CLIENTS, seconds=seconds, stream=False, pause=0.05
    )


def _added(case: Case, gots: list[Got], since: float, until: float) -> list[str]:
    before = p99_ms([got for got in gots if got.ended < since])
    within = p99_ms([got for got in gots if since <= got.began < until])
    slow = sum(got.seconds_to_first > SLOW_SECONDS for got in gots)
    case.notes.append(
        f"p99 {before:.0f} ms before, {within:.0f} ms while away; {slow} above {SLOW_SECONDS} s"
    )
    return (
        [f"I8: p99 was {before:.0f} ms, and {within:.0f} ms while away"]
        if within > before + ADDED_MS_MAX
        else []
    )


async def _while_away(site: Site, until: float, *, reads: bool) -> list[str]:
    """Ask for readiness and with unknown keys, as long as the database is away."""
    statuses: set[int] = set()
    readiness: list[httpx.Response] = []
    unknown = "mtr_" + site.key.split("_")[1][::-1] + "_" + site.key.split("_")[2][::-1]
    while time.monotonic() < until:
        got = await traffic.ask(site.url, unknown, "unknown", stream=False)
        statuses.add(got.status or 0)
        ready = await asyncio.to_thread(wire.exchange, site.url, wire.request("GET", "/health/ready"))
        readiness.append(httpx.Response(ready.status, content=ready.body))
        await asyncio.sleep(0.1)
    expected = {401} if reads else {503}
    found = [] if statuses == expected else [f"I6: unknown keys got {sorted(statuses)} and not {expected}"]
    last = readiness[-1]
    if {each.status_code for each in readiness} != {200}:
        found.append(f"I6: readiness was {sorted({each.status_code for each in readiness})}")
    if not reads and "database" not in last.json()["degraded"]:
        found.append(f"I6: readiness does not say that the database is away: {last.text}")
    return found


def f25(case: Case) -> list[str]:
    """Start with the database down: the keys of the last snapshot work, and everything arrives later."""
    found: list[str] = []
    with services.cluster() as cluster, case.site(cluster.url) as site:
        site.start()
        site.script.play(Plan(pieces=1, pause=0, streams=False))
        # The snapshot that has the key is written by the upkeep.
        asyncio.run(_until_snapshot(site))
        site.end()
        cluster.stop()
        models = [f"f25-{number}" for number in range(20)]
        try:
            site.start()
        except AssertionError as fault:
            last = str(fault).strip().splitlines()[-1]
            found.append(f"F25: the server does not start with the database down: {last}")
            cluster.start()
            return found
        gots = asyncio.run(traffic.all_at_once(site.url, site.key, models, stream=False))
        found += failures(gots, "requests after a start without a database")
        cluster.start()
        found += reconciler.reconcile(site, gots, "f25-")
        return found + calm(site, "f25c", 20)


async def _until_snapshot(site: Site) -> None:
    path = site.data_dir / GRANTS_FILE
    made = path.stat().st_mtime if path.exists() else 0.0
    await traffic.until(lambda: path.exists() and path.stat().st_mtime > made, "a snapshot of the keys", 15)


def f27(case: Case) -> list[str]:
    """End a server while the database is down: in time, and the next start ships."""
    found: list[str] = []
    with services.cluster() as cluster, case.site(cluster.url) as site:
        for run in range(case.runs):
            site.start()
            site.script.play(Plan(pieces=2, pause=0))
            prefix = f"f27-{run}-"
            warm = asyncio.run(traffic.all_at_once(site.url, site.key, [f"{prefix}warm"]))
            if run % 2:
                cluster.pause()
            else:
                cluster.stop()
            models = [f"{prefix}{number}" for number in range(50)]
            gots = asyncio.run(traffic.all_at_once(site.url, site.key, models))
            found += failures(gots, "requests before the end")
            began = time.monotonic()
            site.running.process.send_signal(signal.SIGTERM)
            status = site.running.process.wait(CLOSING_SECONDS_MAX + 30)
            took = time.monotonic() - began
            case.notes.append(f"ended with {status} after {took:.1f} s")
            found += [] if status == 0 else [f"F27: the server ended with {status}: {site.log[-200:]!r}"]
            found += [] if took < CLOSING_SECONDS_MAX else [f"I8: ending took {took:.1f} s"]
            site.end()
            cluster.resume() if run % 2 else cluster.start()
            site.start()
            found += reconciler.reconcile(site, [*warm, *gots], prefix)
            site.end()
        site.start()
        return found + calm(site, "f27c", 0)


def f29(case: Case) -> list[str]:
    """Break connections off in the middle of COMMIT: what is delivered again counts once."""
    with (
        services.fresh_database() as url,
        cutter.running(url, case.random(-1)) as proxy,
        case.site(url) as site,
    ):
        return _cut_commits(case, proxy, site)


def _cut_commits(case: Case, proxy: cutter.Cutter, site: Site) -> list[str]:
    found: list[str] = []
    site.settings["database_url"] = proxy.url
    site.start()
    settled = 0
    for run in range(case.runs):
        site.script.play(Plan(pieces=1, pause=0, streams=False))
        prefix = f"f29-{run}-"
        # A key that nobody has asked with yet would be looked up by a connection that is cut.
        gots = asyncio.run(traffic.all_at_once(site.url, site.key, [f"{prefix}known"], stream=False))
        proxy.share = 0.7
        gots += asyncio.run(_load(site, prefix, 10 if case.full else 4))
        proxy.share = 0.0
        found += failures(gots, "requests while commits were cut")
        found += reconciler.reconcile(site, gots, prefix)
        settled += len(gots)
    case.notes.append(f"{proxy.cuts} commits were cut, {settled} requests")
    found += [] if proxy.cuts else ["no commit was cut: the experiment shows nothing"]
    return found + calm(site, "f29c", settled, told=case.full)


EXPERIMENTS = (
    Experiment("F26", f26, 1, 1, databases=ON, short_databases=ON),
    Experiment("F28", f28, 1, 0, databases=ON),
    Experiment("F25", f25, 1, 0, databases=ON),
    Experiment("F27", f27, 2, 0, databases=ON),
    Experiment("F29", f29, 3, 1, databases=ON, short_databases=ON),
    Experiment("F30", f30, 1, 0, databases=ON),
)
