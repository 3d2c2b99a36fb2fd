"""All experiments about budgets, the longest first, and how one is run."""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from tests.faults.site import POSTGRESQL, SQLITE
from tests.quota import apart, seeds, servers, storms
from tests.quota.servers import SETTINGS, Experiment, Row, Setting

ALONE = Setting(database=SQLITE)
SHARED = Setting(database=POSTGRESQL)
FOUR = Setting(database=POSTGRESQL, workers=4)
TWO = Setting(database=POSTGRESQL, servers=2)
LEAVING = 200
SEEDS_A_JOB = 250


class Named(NamedTuple):
    """An experiment, and the name to choose it by."""

    name: str
    run: Experiment


def experiments(*, kills: int, worlds: int) -> Iterator[Named]:
    """Yield all, the longest first."""
    for setting in (ALONE, SHARED):
        yield Named("kills", partial(servers.kills, setting, kills // 2))
    for setting in SETTINGS:
        yield Named("burst", partial(servers.bursts, setting))
    yield Named("many", partial(servers.many, TWO))
    for setting in SETTINGS:
        yield Named("oversized", partial(servers.oversized, setting))
        yield Named("levels", partial(storms.levels, setting))
        yield Named("leavers", partial(storms.leavers, setting, LEAVING))
    for setting in (ALONE, FOUR, TWO):
        yield Named("switch", partial(storms.switch, setting))
    yield Named("paused", partial(servers.paused, TWO))
    for lost in (False, True):
        yield Named("dies", partial(apart.dies_holding, TWO, journal_lost=lost))
    yield Named("partition", partial(apart.partition, TWO))
    yield Named("outage", partial(servers.outage, SHARED))
    for setting in (ALONE, TWO):
        yield Named("redis", partial(apart.redis, setting))
    for first in range(0, worlds, SEEDS_A_JOB):
        yield Named("seeds", partial(_seeds, first, min(first + SEEDS_A_JOB, worlds)))


def _seeds(first: int, end: int) -> Iterator[Row]:
    """Q2 and Q4 in process."""
    injected: Counter[str] = Counter()
    faults = [fault for _, found in seeds.violations(range(first, end), injected) for fault in found]
    name = f"Q2/Q4: {first}-{end - 1}"
    named: dict[str, Any] = dict(injected)
    yield Row(setting=ALONE, experiment=name, enforcement="strict", faults=tuple(faults), **named)


def run(named: Named) -> list[Row]:
    """Run one; whatever goes wrong is in its rows."""
    logging.disable(logging.ERROR)
    rows: list[Row] = []
    try:
        rows.extend(named.run())
    except Exception as fault:  # noqa: BLE001 (whatever it is, the table says so)
        rows.append(Row(setting=ALONE, experiment=f"{named.name} broke", faults=(repr(fault),)))
    return rows
