"""F01 to F07: `kill -9` at every moment of a request's life, and of its event's way into the ledger."""

import asyncio
import time
from collections.abc import Callable

from meter.core.events import Outcome, UsageSource
from tests.fake_upstream import Gate
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm
from tests.faults.reconciler import KILLED
from tests.faults.script import Plan
from tests.faults.site import Site
from tests.faults.traffic import Got

STREAMS = 50
RUNS_A_SITE = 25
BACKLOG_CLIENTS = 40


def f03(case: Case) -> list[str]:
    """Kill with 50 streams open, at a random moment; the next server adopts, and is the next victim."""
    found: list[str] = []
    for runs in _parts(case.runs):
        with case.site(durability=("power", "crash")[runs.start // RUNS_A_SITE % 2]) as site:
            site.start()
            for run in runs:
                found += [f"run {run}: {each}" for each in _mid_stream(site, case, run)]
            found += calm(site, "f03", 0)
    return found


def _parts(runs: int) -> list[range]:
    return [range(at, min(at + RUNS_A_SITE, runs)) for at in range(0, runs, RUNS_A_SITE)]


def _mid_stream(site: Site, case: Case, run: int) -> list[str]:
    chance = case.random(run)
    site.script.play(lambda _model: Plan(pieces=20 + len(_model) % 3, pause=0.02))
    prefix = f"f03-{run}-"
    after = chance.uniform(0, 0.6)
    gots = asyncio.run(_kill_under_way(site, [f"{prefix}{number}" for number in range(STREAMS)], after))
    site.start()
    return reconciler.reconcile(site, gots, prefix, KILLED)


async def _kill_under_way(site: Site, models: list[str], after: float) -> list[Got]:
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await asyncio.sleep(after)
    await asyncio.to_thread(site.kill)
    return await asking


def f01(case: Case) -> list[str]:
    """Kill as requests come in, around the intent and the call of the upstream."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            chance = case.random(run)
            gate = Gate()
            site.script.play(Plan(before_head=gate))
            prefix = f"f01-{run}-"
            models = [f"{prefix}{number}" for number in range(STREAMS)]
            gots = asyncio.run(_kill_under_way(site, models, chance.uniform(0.001, 0.08)))
            gate.open()
            site.start()
            found += [f"run {run}: {each}" for each in reconciler.reconcile(site, gots, prefix, KILLED)]
        return found + calm(site, "f01", 0, told=case.full)


def f02(case: Case) -> list[str]:
    """Kill when the request is with the upstream, and no headers have come."""
    return _at_gate(case, "f02", lambda gate: Plan(before_head=gate), {UsageSource.ESTIMATED})


def f04(case: Case) -> list[str]:
    """Kill around the chunk that has the usage."""
    found = _at_gate(
        case,
        "f04",
        lambda gate: Plan(pieces=5, pause=0, after_usage=gate),
        {UsageSource.ESTIMATED, UsageSource.REPORTED},
    )
    return found + _at_gate(
        case, "f04b", lambda gate: Plan(pieces=5, pause=0, before_usage=gate), {UsageSource.ESTIMATED}
    )


def _at_gate(case: Case, name: str, plan: Callable[[Gate], Plan], sources: set[UsageSource]) -> list[str]:
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            gate = Gate()
            site.script.play(plan(gate))
            prefix = f"{name}-{run}-"
            gots = asyncio.run(_kill_at_gate(site, [f"{prefix}{number}" for number in range(10)], gate))
            gate.open()
            site.start()
            found += [f"run {run}: {each}" for each in reconciler.reconcile(site, gots, prefix)]
            events = [event for each in site.events(prefix).values() for event in each]
            found += [
                f"run {run}: {event.model_requested} is {event.outcome}/{event.usage_source}"
                for event in events
                if event.outcome is not Outcome.INTERRUPTED or event.usage_source not in sources
            ]
        return found + calm(site, name, 0, told=case.full)


async def _kill_at_gate(site: Site, models: list[str], gate: Gate) -> list[Got]:
    asking = asyncio.create_task(traffic.all_at_once(site.url, site.key, models))
    await traffic.until(lambda: site.script.count == len(models), "all requests at the upstream")
    await asyncio.to_thread(gate.reached.wait, 20)
    # What was sent before the gate is given the time to be read, or the experiment would be another.
    await asyncio.sleep(0.05)
    await asyncio.to_thread(site.kill)
    return await asking


def f05(case: Case) -> list[str]:
    """Kill behind the settle, before the client has the last byte: a client that has stopped reading."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=5, pause=0, streams=run % 2 == 0))
            prefix = f"f05-{run}-"
            models = [f"{prefix}{number}" for number in range(STREAMS)]
            gots = asyncio.run(_kill_when_answered(site, models, stream=run % 2 == 0))
            site.start()
            found += [f"run {run}: {each}" for each in reconciler.reconcile(site, gots, prefix, KILLED)]
        return found + calm(site, "f05", 0, told=case.full)


async def _kill_when_answered(site: Site, models: list[str], *, stream: bool) -> list[Got]:
    """Kill as soon as the first of many has its whole answer."""
    asking = [asyncio.create_task(traffic.ask(site.url, site.key, model, stream=stream)) for model in models]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(site.kill)
    return list(await asyncio.gather(*asking))


def f06(case: Case) -> list[str]:
    """Kill while a backlog goes into the ledger: before, within and behind its transactions."""
    found: list[str] = []
    with case.site(durability="crash") as site:
        site.start()
        for run in range(case.runs):
            chance = case.random(run)
            prefix = f"f06-{run}"
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            gots = asyncio.run(_backlog(site, prefix, chance.uniform(0.3, 1.2)))
            # The next one is killed as well, while it adopts.
            for _ in range(2):
                site.start()
                time.sleep(chance.uniform(0, 0.1))
                site.kill()
            site.start()
            found += [f"run {run}: {each}" for each in reconciler.reconcile(site, gots, prefix, KILLED)]
        return found + calm(site, "f06", 0, told=case.full)


async def _backlog(site: Site, prefix: str, seconds: float) -> list[Got]:
    loading = asyncio.create_task(
        traffic.load(site.url, site.key, prefix, clients=BACKLOG_CLIENTS, seconds=seconds, stream=False)
    )
    await asyncio.sleep(seconds * 0.9)
    await asyncio.to_thread(site.kill)
    return [got for got in await loading if not got.refused]


EXPERIMENTS = (
    Experiment("F03", f03, 200, 3, short_databases=("sqlite", "postgresql")),
    Experiment("F01", f01, 20, 1, postgresql_runs=5),
    Experiment("F02", f02, 10, 1, postgresql_runs=3),
    Experiment("F04", f04, 10, 1, postgresql_runs=3),
    Experiment("F05", f05, 20, 1, postgresql_runs=5),
    Experiment("F06/F07", f06, 20, 1, postgresql_runs=10),
)
