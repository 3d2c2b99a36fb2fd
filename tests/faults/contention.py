"""F34 and F36: reports take all of their connections, and a migration locks the tables."""

import asyncio
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import psycopg

from meter.store import ledger
from meter.store.purpose import READING_LONG
from tests import services
from tests.faults import long_reports, reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures, p99_ms
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, Site
from tests.faults.traffic import Got

ON = (POSTGRESQL,)
CLIENTS = 8
REPORTS = 100
EVENTS = 30_000
REPORT_SECONDS_MAX = 300.0


async def _load(site: Site, prefix: str, seconds: float) -> list[Got]:
    return await traffic.load(
        site.url, site.key, prefix, clients=CLIENTS, seconds=seconds, stream=False, pause=0.02
    )


def f34(case: Case) -> list[str]:
    """Ask for a hundred long reports at once: requests, new keys and the ledger go on as ever."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for batch in long_reports.batches(case, EVENTS):
            ledger.append(site.database, batch, datetime.now(UTC))
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f34-{run}-"
            gots, beside = asyncio.run(_beside_reports(site, prefix))
            found += failures(gots, "requests beside a hundred reports")
            found += reconciler.reconcile(site, gots, prefix)
            case.notes.append(f"{beside} requests, p99 {p99_ms(gots):.0f} ms, while reports waited")
            found += [] if beside else ["no report waited for others: the experiment shows nothing"]
            settled += len(gots)
        return found + calm(site, "f34c", settled, told=False)


async def _beside_reports(site: Site, prefix: str) -> tuple[list[Got], int]:
    """Return what clients got, and how many of them while reports waited for connections."""
    meter = site.running
    limits = httpx.Limits(max_connections=REPORTS)
    async with httpx.AsyncClient(
        base_url=meter.control_url,
        headers={"authorization": f"Bearer {meter.admin_token}"},
        limits=limits,
        timeout=REPORT_SECONDS_MAX,
        trust_env=False,
    ) as control:
        ends: list[float] = []
        statuses: list[int] = []
        since = f"{datetime.now(UTC) - timedelta(days=long_reports.DAYS + 1):%Y-%m-%d}"

        async def report() -> None:
            answer = await control.get("/api/v1/reports", params={"by": "user", "since": since})
            statuses.append(answer.status_code)
            ends.append(time.monotonic())

        asking = asyncio.gather(*(report() for _ in range(REPORTS)))
        gots: list[Got] = []
        while not asking.done():
            gots += await _load(site, f"{prefix}{len(gots)}", 1)
        await asking
    # One that waited too long for a connection is told to come again.
    assert {200} <= set(statuses) <= {200, 503}, statuses
    # From here on all that were left had connections.
    waited_until = ends[-READING_LONG.connections_max - 1]
    return gots, sum(got.ended < waited_until for got in gots)


def f36(case: Case) -> list[str]:
    """Have somebody change tables for ten seconds under load: requests go on, and the ledger catches up."""
    found: list[str] = []
    seconds = 10.0 if case.full else 3.0
    with services.fresh_database() as url, case.site(url) as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f36-{run}"
            gots = [asyncio.run(traffic.ask(site.url, site.key, f"{prefix}-first", stream=False))]
            gots += asyncio.run(_beside_a_migration(site, url, f"{prefix}-within", seconds, run))
            # Whoever writes does not know of the new columns, and goes on.
            gots += asyncio.run(_load(site, f"{prefix}-after", 1))
            found += failures(gots, "requests beside a migration")
            found += reconciler.reconcile(site, gots, f"{prefix}-")
            case.notes.append(f"{len(gots)} requests, p99 {p99_ms(gots):.0f} ms")
            settled += len(gots)
        return found + calm(site, "f36c", settled, told=case.full)


async def _beside_a_migration(site: Site, url: str, prefix: str, seconds: float, run: int) -> list[Got]:
    loading = asyncio.create_task(_load(site, prefix, seconds + 1))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(_migrate, url, seconds, run)
    return await loading


def _migrate(url: str, seconds: float, run: int) -> None:
    tables = ("api_keys", "teams", "usage_15m", "usage_events")
    with closing(psycopg.connect(url)) as connection:
        while True:
            try:
                # As migrations do: all at once, or later.
                connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE".encode())
                break
            except psycopg.errors.DeadlockDetected:
                connection.rollback()
        for table in tables:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN of_a_later_version_{run} integer".encode())
        time.sleep(seconds)
        connection.commit()


EXPERIMENTS = (
    Experiment("F34", f34, 1, 0),
    Experiment("F36", f36, 2, 0, databases=ON),
)
