"""What an experiment is given, and what they all do in the end."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults import canaries, reconciler, traffic
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, SQLITE, Site, opened

CALM_REQUESTS = 20
BOTH = (SQLITE, POSTGRESQL)


class Skip(Exception):
    """What an experiment needs is not here; the message says what."""


@dataclass
class Case:
    """One experiment on one database."""

    database: str
    runs: int
    full: bool = True
    """Whether there is time for what takes long."""
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    """What sites kept that an experiment has not looked for itself."""

    @contextmanager
    def site(self, url: str | None = None, **settings: object) -> Iterator[Site]:
        """Open a site on this case's database."""
        with opened(self.database, url, **settings) as site:
            yield site
            if not site.searched:
                self.leaks += canaries.secrets_kept(site)

    def random(self, run: int) -> random.Random:
        """Return the randomness of a run, the same every time."""
        return random.Random(f"{self.seed} {self.database} {run}")


class Experiment(NamedTuple):
    """A row of the list of experiments."""

    name: str
    run: Callable[[Case], list[str]]
    runs: int
    """In the full set."""
    short_runs: int = 0
    """In the short set; 0 is not there."""
    databases: tuple[str, ...] = BOTH
    short_databases: tuple[str, ...] = (SQLITE,)
    postgresql_runs: int = 0
    """If they are fewer."""


def calm(site: Site, name: str, settled: int | None = None, *, told: bool = True) -> list[str]:
    """After the fault everything is as ever; `settled` is how much the living process has settled so far."""
    site.script.play(Plan(pieces=4, pause=0))
    baseline = site.descriptors()
    models = [f"{name}-calm-{number}" for number in range(CALM_REQUESTS)]
    gots = asyncio.run(traffic.all_at_once(site.url, site.key, models))
    found = [f"calm: {got.model} got {got.status} {got.fault}" for got in gots if not got.whole]
    found += reconciler.reconcile(site, gots, f"{name}-calm")
    if settled is not None:
        found += reconciler.counters(site, settled + CALM_REQUESTS)
    return [
        *found,
        *reconciler.descriptors_back(site, baseline),
        *(reconciler.told(site) if told else []),
        *canaries.secrets_kept(site),
    ]


def failures(gots: list[traffic.Got], name: str) -> list[str]:
    """Say which clients did not get a whole 200."""
    bad = [got for got in gots if got.status != 200 or not got.whole]
    shown = ", ".join(f"{got.model} {got.status} {got.fault or bytes(got.raw[-160:])!r}" for got in bad[:3])
    return [f"I6: {name}: {len(bad)} of {len(gots)} clients failed: {shown}"] if bad else []


def p99_ms(gots: list[traffic.Got]) -> float:
    """Return the 99th percentile of the time to the first byte."""
    times = sorted(got.seconds_to_first for got in gots)
    return 1000 * times[int(len(times) * 0.99)] if times else 0.0
