"""F11 to F17: a server that is asked to stop, nicely or not, is paused, or crashes again and again."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from meter.core.events import Outcome
from meter.journal.folder import DONE, Folder
from tests import wire
from tests.fake_upstream import Gate
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures
from tests.faults.reconciler import KILLED
from tests.faults.script import Plan
from tests.faults.site import Site
from tests.faults.traffic import Got

CLOSING_SECONDS_MAX = 5.0
DELAY_SECONDS = 1.0
ADOPTION_SECONDS_MAX = 25.0


def _models(name: str, run: int, count: int) -> list[str]:
    return [f"{name}-{run}-{number}" for number in range(count)]


async def _under_way(site: Site, models: list[str], act: Callable[[], None], after: float) -> list[Got]:
    """Act when all requests are with the upstream, and a little later."""
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await traffic.until(lambda: site.script.count == len(models), "all requests at the upstream")
    await asyncio.sleep(after)
    await asyncio.to_thread(act)
    return await asking


def f11(case: Case) -> list[str]:
    """End a server with streams open that finish in time: nobody is cut."""
    found: list[str] = []
    count = 200 if case.full else 40
    with case.site(shutdown_timeout_seconds=60, shutdown_delay_seconds=DELAY_SECONDS) as site:
        for run in range(case.runs):
            site.start()
            site.script.play(Plan(pieces=40, pause=0.05))
            said: list[str] = []
            statuses: list[int] = []

            def act(site: Site = site, said: list[str] = said, statuses: list[int] = statuses) -> None:
                site.running.process.send_signal(signal.SIGTERM)
                said.extend(_says_that_it_stops(site))
                statuses.append(site.end())

            gots = asyncio.run(_under_way(site, _models("f11", run, count), act, 0.2))
            found += said + failures(gots, "a graceful stop")
            found += [] if statuses == [0] else [f"the server ended with {statuses}"]
            found += reconciler.reconcile(site, gots, f"f11-{run}-")
        site.start()
        found += asyncio.run(_latecomers(site))
        site.end()
        site.start()
        return found + calm(site, "f11c", 0, told=case.full)


def _says_that_it_stops(site: Site) -> list[str]:
    """Ask for readiness until the signal has arrived: it is 503 before requests are no longer taken."""
    statuses: list[int] = []
    while 503 not in statuses:
        try:
            statuses.append(wire.exchange(site.url, wire.request("GET", "/health/ready")).status)
        except OSError:
            return [f"I6: nobody listens, and readiness was {sorted(set(statuses))} until then"]
    return []


async def _latecomers(site: Site) -> list[str]:
    """Ask while a server that was told to end still accepts: whoever is taken in is not cut either."""
    site.script.play(lambda model: Plan(pieces=20 if "first" in model else 40, pause=0.05))
    first = asyncio.create_task(traffic.ask(site.url, site.key, "f11-first"))
    await traffic.until(lambda: site.script.count, "the first request at the upstream")
    site.running.process.send_signal(signal.SIGTERM)
    late = []
    for number in range(40):
        late.append(asyncio.create_task(traffic.ask(site.url, site.key, f"f11-late-{number}")))
        await asyncio.sleep(0.02)
    gots = [await first, *await asyncio.gather(*late)]
    taken_in = [got for got in gots if got.raw]
    return failures(taken_in, "streams that began while the server was ending")


def f12(case: Case) -> list[str]:
    """End a server whose upstream never finishes: streams are cut at the deadline, and charged exactly."""
    found: list[str] = []
    with case.site(shutdown_timeout_seconds=1) as site:
        for run in range(case.runs):
            site.start()
            gate = Gate()
            site.script.play(Plan(pieces=10, pause=0.005, before_usage=gate))
            statuses: list[int] = []
            began = time.monotonic()
            gots = asyncio.run(
                _under_way(
                    site,
                    _models("f12", run, 50),
                    lambda site=site, statuses=statuses: statuses.append(site.end()),  # type: ignore[misc]
                    0.3,
                )
            )
            took = time.monotonic() - began - 0.3 - 1
            gate.open()
            found += [] if statuses == [0] else [f"the server ended with {statuses}"]
            found += [] if took < CLOSING_SECONDS_MAX + 2 else [f"I8: it took {took:.1f} s too long to end"]
            site.start()
            found += reconciler.reconcile(site, gots, f"f12-{run}-")
            found += _cut(site, gots, f"f12-{run}-")
            site.end()
        site.start()
        return found + calm(site, "f12c", 0, told=case.full)


def _cut(site: Site, gots: list[Got], prefix: str) -> list[str]:
    events = site.events(prefix)
    texts = {got.model: got.texts for got in gots}
    return [
        f"{event.model_requested} is {event.outcome} with {event.completion_tokens} tokens of {texts[model]}"
        for model, found in events.items()
        for event in found
        if event.outcome is not Outcome.INTERRUPTED or event.completion_tokens < texts[model]
    ]


def f13(case: Case) -> list[str]:
    """End a server, and kill it before it is done."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            after = case.random(run).uniform(0, 1)
            site.script.play(Plan(pieces=60, pause=0.02))

            def act(site: Site = site, after: float = after) -> None:
                site.running.process.send_signal(signal.SIGTERM)
                time.sleep(after)
                site.kill()

            gots = asyncio.run(_under_way(site, _models("f13", run, 50), act, 0.1))
            site.start()
            found += reconciler.reconcile(site, gots, f"f13-{run}-", KILLED)
        return found + calm(site, "f13c", 0, told=case.full)


def f14(case: Case) -> list[str]:
    """Send SIGTERM and SIGINT again and again while streams finish."""
    found: list[str] = []
    with case.site() as site:
        for run in range(case.runs):
            site.start()
            site.script.play(Plan(pieces=40, pause=0.02))
            chance = case.random(run)
            statuses: list[int] = []

            def act(
                site: Site = site, statuses: list[int] = statuses, chance: random.Random = chance
            ) -> None:
                for _ in range(20):
                    if site.running.process.poll() is None:
                        site.running.process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
                    time.sleep(chance.uniform(0, 0.03))
                statuses.append(site.end())

            gots = asyncio.run(_under_way(site, _models("f14", run, 50), act, 0.1))
            found += failures(gots, "a storm of signals")
            found += [] if statuses == [0] else [f"the server ended with {statuses}"]
            found += reconciler.reconcile(site, gots, f"f14-{run}-")
        site.start()
        return found + calm(site, "f14c", 0, told=case.full)


def f16(case: Case) -> list[str]:
    """Pause a server with streams open: nobody gets its journal, and it goes on as if nothing had been."""
    found: list[str] = []
    stolen: list[str] = []
    seconds = 15 if case.full else 2
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=30, pause=0.02))

            def act(site: Site = site) -> None:
                site.running.process.send_signal(signal.SIGSTOP)
                time.sleep(seconds)
                for path in site.journals():
                    stolen.extend(_stolen(path))
                site.running.process.send_signal(signal.SIGCONT)

            gots = asyncio.run(_under_way(site, _models("f16", run, 50), act, 0.2))
            found += failures(gots, "a pause")
            found += reconciler.reconcile(site, gots, f"f16-{run}-")
        return found + stolen + calm(site, "f16c", 50 * case.runs, told=case.full)


def _stolen(path: Path) -> list[str]:
    folder = Folder(path)
    lock = None if folder.done.exists() else folder.lock()
    if lock is None:
        return []
    os.close(lock)
    return [f"I4: the journal {folder.holder} of a paused server may be taken"]


def f17(case: Case) -> list[str]:
    """Crash and start again, ten times a run, under load."""
    found: list[str] = []
    with case.site() as site:
        for run in range(case.runs):
            chance = case.random(run)
            site.script.play(Plan(pieces=4, pause=0.01))
            gots: list[Got] = []
            for restart in range(10):
                site.start()
                prefix = f"f17-{run}-{restart}"
                gots += asyncio.run(load_and_kill(site, prefix, chance.uniform(0.05, 0.6)))
            crashed = site.journals()
            site.start()
            found += reconciler.reconcile(site, gots, f"f17-{run}-", KILLED)
            found += all_adopted(crashed)
            site.kill()
        site.start()
        return found + calm(site, "f17c", 0, told=case.full)


def all_adopted(journals: Iterable[Path]) -> list[str]:
    """Wait until journals of servers that are gone have been finished."""
    deadline = time.monotonic() + ADOPTION_SECONDS_MAX
    while (left := [path for path in journals if not (path / DONE).exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"I10: {len(left)} journals are not done"] if left else []


async def load_and_kill(site: Site, prefix: str, seconds: float) -> list[Got]:
    """Keep clients asking for a time, and kill the server at its end."""
    url = site.url
    loading = asyncio.create_task(traffic.load(url, site.key, prefix, clients=10, seconds=seconds + 0.05))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(site.kill)
    return [got for got in await loading if not got.refused]


EXPERIMENTS = (
    Experiment("F11", f11, 2, 0),
    Experiment("F12", f12, 3, 1),
    Experiment("F13", f13, 10, 0, postgresql_runs=3),
    Experiment("F14", f14, 5, 1, postgresql_runs=2),
    Experiment("F16", f16, 1, 0),
    Experiment("F17", f17, 2, 0, postgresql_runs=1),
)
