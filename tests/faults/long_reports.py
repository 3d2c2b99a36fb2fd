"""F40: a report reads a long ledger again and again while events come in."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from meter.core.attempts import Attempt, Ending, conclude
from meter.core.events import Outcome, UsageEvent, uuid7
from meter.core.observation import Observation
from meter.core.usage import TokenUsage
from meter.store import ledger
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures, p99_ms
from tests.faults.script import Plan
from tests.faults.site import Site
from tests.faults.traffic import Got

EVENTS = 300_000
EVENTS_SHORT = 20_000
BATCH = 5000
USERS = 500
DAYS = 20
CLIENTS = 8
SECONDS = 6.0
ROUNDS = 4
LAG_SECONDS_MAX = 5.0
# Beside something that only takes a core, as the reports do: what is more comes of what they share.
BURN = "while True: pass"
P99_FACTOR_MAX = 2.0
P99_ADDED_MS_MAX = 50.0


class _Round(NamedTuple):
    """Some seconds beside a busy process, and some beside reports."""

    before: list[Got]
    within: list[Got]
    lag: float
    """How far the ledger was behind at most, in seconds."""
    reports: list[float]
    """How long each took."""


def f40(case: Case) -> list[str]:
    """Report on a long ledger by what only the ledger knows, under load, and compare with a busy process."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        count = EVENTS if case.full else EVENTS_SHORT
        for batch in batches(case, count):
            ledger.append(site.database, batch, datetime.now(UTC))
        case.notes.append(f"{count} events")
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f40-{run}-"
            rounds = [_round(site, f"{prefix}{number}-") for number in range(ROUNDS)]
            gots = [got for each in rounds for got in (*each.before, *each.within)]
            found += failures(gots, "requests beside reports")
            found += reconciler.reconcile(site, gots, prefix)
            found += _compared(case, rounds)
            settled += len(gots)
        # Verified twice by now; the command would take its minute.
        return found + calm(site, "f40c", settled, told=False)


def batches(case: Case, count: int) -> Iterator[list[UsageEvent]]:
    """Make a long ledger of so many events."""
    chance = case.random(0)
    now = datetime.now(UTC)
    attempt = Attempt(
        event_id="",
        started_at=now,
        team_id="long",
        key_id="long",
        route="chat.completions",
        upstream="default",
        model="long-ledger",
        stream=False,
        prompt_estimate=10,
    )
    seen = Observation(usage=TokenUsage(prompt_tokens=10, completion_tokens=5))
    template = conclude(attempt, Ending(outcome=Outcome.OK, status=200, duration_ms=10), seen)
    for _ in range(0, count, BATCH):
        yield [_event(template, now, chance) for _ in range(BATCH)]


def _event(template: UsageEvent, now: datetime, chance: random.Random) -> UsageEvent:
    began = now - timedelta(days=chance.randrange(DAYS), minutes=chance.randrange(15))
    return msgspec.structs.replace(
        template,
        event_id=uuid7(int(began.timestamp() * 1000), chance.randbytes(10)),
        started_at=began,
        end_user=f"user-{chance.randrange(USERS)}",
        tags=(f"tag-{chance.randrange(USERS)}",),
    )


def _round(site: Site, prefix: str) -> _Round:
    with subprocess.Popen([sys.executable, "-c", BURN]) as burning:
        try:
            before = asyncio.run(_load(site, f"{prefix}before"))
        finally:
            burning.kill()
    return _Round(before, *asyncio.run(_load_and_report(site, f"{prefix}within")))


async def _load(site: Site, prefix: str) -> list[Got]:
    return await traffic.load(
        site.url, site.key, prefix, clients=CLIENTS, seconds=SECONDS, stream=False, pause=0.05
    )


async def _load_and_report(site: Site, prefix: str) -> tuple[list[Got], float, list[float]]:
    """Return what clients got, how far the ledger was behind at most, and how long each report took."""
    loading = asyncio.create_task(_load(site, prefix))
    reports: list[float] = []
    since = f"{datetime.now(UTC) - timedelta(days=DAYS + 1):%Y-%m-%d}"

    async def report() -> None:
        while not loading.done():
            began = time.monotonic()
            await asyncio.to_thread(site.running.report, "--by", "user,day", "--since", since)
            reports.append(time.monotonic() - began)

    reporting = asyncio.create_task(report())
    lag = 0.0
    while not loading.done():
        lag = max(lag, await asyncio.to_thread(site.counted, "meter_journal_oldest_seconds"))
        await asyncio.sleep(0.1)
    await reporting
    return await loading, lag, reports


def _compared(case: Case, rounds: list[_Round]) -> list[str]:
    # The best of some rounds is the one that the machine's other work disturbed least.
    without, beside = min(p99_ms(each.before) for each in rounds), min(p99_ms(each.within) for each in rounds)
    lag = max(each.lag for each in rounds)
    took = [seconds for each in rounds for seconds in each.reports]
    case.notes.append(
        f"{len(took)} reports of {max(took):.1f} s at most; the ledger was {lag:.1f} s behind at most; "
        f"p99 {without:.0f} ms without, {beside:.0f} ms beside them"
    )
    found = [] if lag < LAG_SECONDS_MAX else [f"F40: the ledger was {lag:.1f} s behind"]
    if beside > P99_FACTOR_MAX * without + P99_ADDED_MS_MAX:
        found.append(f"I8: p99 was {without:.0f} ms without reports, and {beside:.0f} ms beside them")
    return found


EXPERIMENTS = (Experiment("F40", f40, 1, 0),)
