"""F35, F71 and F72: several servers on one database, and several databases under one server."""

import asyncio
import shutil
import signal
import time

from meter.core.events import UsageEvent
from tests import services, wire
from tests.faults import canaries, reconciler, traffic
from tests.faults.case import Case, Experiment, failures
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, Site
from tests.faults.traffic import Got

ON = (POSTGRESQL,)
CLIENTS = 10


def neighbour(site: Site, name: str) -> Site:
    """Return another server on the same database, with a data directory of its own."""
    return Site(
        site.script, site.data_dir.parent / name, site.database_url, dict(site.settings), key=site.key
    )


def f71(case: Case) -> list[str]:
    """Restart two servers one after the other under load: no request fails.

    In every other run clients ask only servers that say they are ready, as a load balancer does. In the
    others they ask until nobody listens, and a connection that is reset unanswered counts as that: closing
    a listener resets what the kernel has accepted and the process has not.
    """
    found: list[str] = []
    with services.fresh_database() as url, case.site(url, shutdown_delay_seconds=1) as site:
        site.start()
        other = neighbour(site, "other")
        other.start()
        try:
            for run in range(case.runs):
                site.script.play(Plan(pieces=5, pause=0.02))
                restart = _Rolling([site, other], f"f71-{run}-", balanced=run % 2 == 0)
                gots = asyncio.run(restart.run())
                case.notes.append(f"{len(gots)} requests, {restart.resets} resets")
                found += failures(gots, "a rolling restart")
                found += reconciler.reconcile(site, gots, f"f71-{run}-")
            return found + reconciler.told(site) + canaries.secrets_kept(site)
        finally:
            other.close()


class _Rolling:
    """Clients that go on while one server after the other is restarted."""

    def __init__(self, sites: list[Site], prefix: str, *, balanced: bool) -> None:
        self._sites = sites
        self._prefix = prefix
        self._balanced = balanced
        self._urls = [site.url for site in sites]
        self._ready = set(self._urls)
        self._done = asyncio.Event()
        self._gots: list[Got] = []
        self.resets = 0

    async def run(self) -> list[Got]:
        """Restart all, and return what the clients got."""
        working = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        working.append(asyncio.create_task(self._watch()))
        for at, site in enumerate(self._sites):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(site.restart)
            self._urls[at] = site.url
        await asyncio.sleep(0.5)
        self._done.set()
        await asyncio.gather(*working)
        return self._gots

    async def _watch(self) -> None:
        """Ask for readiness again and again."""
        while not self._done.is_set():
            for url in list(self._urls):
                try:
                    answer = await asyncio.to_thread(wire.exchange, url, wire.request("GET", "/health/ready"))
                    ready = answer.status == 200
                except (OSError, ValueError, IndexError):
                    ready = False
                (self._ready.add if ready else self._ready.discard)(url)
            await asyncio.sleep(0.05)

    async def _client(self, number: int) -> None:
        at = 0
        while not self._done.is_set():
            self._gots.append(await self._ask(number, f"{self._prefix}{number}-{at}"))
            at += 1

    async def _ask(self, first: int, model: str) -> Got:
        """Ask one server, and the other only where nobody listens."""
        got = Got(model)
        for at in range(4):
            urls = [url for url in self._urls if not self._balanced or url in self._ready] or self._urls
            got = await traffic.ask(urls[(first + at) % len(urls)], self._sites[0].key, model)
            unanswered = not self._balanced and got.fault == "ConnectionResetError" and not got.raw
            self.resets += unanswered
            if not got.refused and not unanswered:
                break
        return got


def f72(case: Case) -> list[str]:
    """Have two servers adopt copies of one journal at the same time: each event counts once."""
    found: list[str] = []
    with services.fresh_database() as url, case.site(url) as site:
        site.start()
        for run in range(case.runs):
            chance = case.random(run)
            site.script.play(Plan(pieces=5, pause=0.01))
            prefix = f"f72-{run}-"
            gots = asyncio.run(_load_and_kill(site, prefix, chance.uniform(0.2, 0.6)))
            twin = neighbour(site, f"twin-{run}")
            shutil.copytree(site.data_dir, twin.data_dir)
            # The copy has not been shipped from: it holds everything once more.
            forget_shipping(twin)
            asyncio.run(_start_together([site, twin]))
            try:
                found += reconciler.reconcile(site, gots, prefix, reconciler.KILLED)
                before = _ids(site)
                deadline = time.monotonic() + 10
                while len(twin.segments()) > 1 and time.monotonic() < deadline:
                    time.sleep(0.05)
                if _ids(site) != before:
                    found.append("I2: the ledger changed when the same journal was shipped again")
            finally:
                twin.close()
        return found + reconciler.told(site)


def f35(case: Case) -> list[str]:
    """Fall back to a copy of the database that lacks the last events: the journals still have them."""
    found: list[str] = []
    with services.fresh_database() as url, case.site(url) as site:
        for run in range(case.runs):
            site.script.play(Plan(pieces=5, pause=0.01))
            prefix = f"f35-{run}-"
            site.start()
            gots = asyncio.run(_load(site, f"{prefix}kept"))
            site.end()
            with services.copied(site.database_url or url) as older:
                site.start()
                gots += asyncio.run(_load(site, f"{prefix}lost"))
                lost = _arrived(site, f"{prefix}lost")
                site.kill()
                _become(site, older)
                found += [] if not site.events(f"{prefix}lost") else ["the copy lacks nothing"]
                forget_shipping(site)
                site.start()
                found += reconciler.reconcile(site, gots, prefix)
                case.notes.append(f"{lost} events were lost with the database, and came again")
                found += reconciler.told(site)
                site.end()
                _become(site, url)
    return found


def _become(site: Site, url: str) -> None:
    site.reopen()
    site.database_url = url


async def _load(site: Site, prefix: str) -> list[Got]:
    return await traffic.load(site.url, site.key, prefix, clients=CLIENTS, seconds=1.5)


def _arrived(site: Site, prefix: str) -> int:
    """Wait for events to be in the ledger, and count them."""
    sent = sum(model.startswith(prefix) for model in site.script.truths())
    deadline = time.monotonic() + reconciler.QUIET_SECONDS_MAX
    while (arrived := len(site.events(prefix))) < sent and time.monotonic() < deadline:
        time.sleep(0.05)
    return arrived


def forget_shipping(site: Site) -> None:
    """Have everything that the journals hold shipped again, as whoever restores a database does."""
    for mark in (*site.data_dir.glob("journal/*/cursor"), *site.data_dir.glob("journal/*/done")):
        mark.unlink()


def _ids(site: Site) -> set[str]:
    events: list[UsageEvent] = [event for found in site.events().values() for event in found]
    return {event.event_id for event in events}


async def _load_and_kill(site: Site, prefix: str, seconds: float) -> list[Got]:
    loading = asyncio.create_task(
        traffic.load(site.url, site.key, prefix, clients=CLIENTS, seconds=seconds + 0.05)
    )
    await asyncio.sleep(seconds)
    await asyncio.to_thread(site.end, signal.SIGKILL)
    return [got for got in await loading if not got.refused]


async def _start_together(sites: list[Site]) -> None:
    await asyncio.gather(*(asyncio.to_thread(site.start) for site in sites))


EXPERIMENTS = (
    Experiment("F35", f35, 1, 0, databases=ON),
    Experiment("F71", f71, 2, 0, databases=ON),
    Experiment("F72", f72, 3, 0, databases=ON),
)
