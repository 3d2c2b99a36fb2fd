"""All experiments, in the order of their importance, and how one is run."""

import contextlib
import logging
import time

import pytest

from tests.faults import (
    clients,
    clocks,
    contention,
    copies,
    damage,
    files,
    long_reports,
    memory,
    outages,
    power_cut,
    process_death,
    reaching,
    refusals,
    scale,
    signals,
    surroundings,
    upstreams,
    workers,
)
from tests.faults.case import Case, Experiment, Skip
from tests.faults.site import POSTGRESQL, SQLITE
from tests.faults.table import Row

EXPERIMENTS: tuple[Experiment, ...] = (
    *process_death.EXPERIMENTS,
    *signals.EXPERIMENTS,
    *damage.EXPERIMENTS,
    *power_cut.EXPERIMENTS,
    *outages.EXPERIMENTS,
    *files.EXPERIMENTS,
    *reaching.EXPERIMENTS,
    *upstreams.EXPERIMENTS,
    *surroundings.EXPERIMENTS,
    *clients.EXPERIMENTS,
    *copies.EXPERIMENTS,
    *refusals.EXPERIMENTS,
    *contention.EXPERIMENTS,
    *scale.EXPERIMENTS,
    *workers.EXPERIMENTS,
    *memory.EXPERIMENTS,
    *clocks.EXPERIMENTS,
    *long_reports.EXPERIMENTS,
)


def hush() -> None:
    """Keep quiet about requests that a killed server has not sent to their end: they are no news here."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def find(name: str) -> Experiment:
    """Return the experiment of this name."""
    return next(each for each in EXPERIMENTS if name in each.name.split("/"))


def runs_of(found: Experiment, database: str, *, full: bool = True) -> int:
    """Return how many runs an experiment has on a database."""
    if not full:
        return found.short_runs
    return found.postgresql_runs or found.runs if database == POSTGRESQL else found.runs


def experiment(name: str, runs: int, database: str = SQLITE, *, full: bool = True, seed: int = 0) -> Row:
    """Run an experiment so many times; each violation is a sentence."""
    found = find(name)
    case = Case(database, runs, full=full, seed=seed)
    began = time.monotonic()
    violations, skipped = [], ""
    try:
        violations = [*found.run(case), *case.leaks]
    except (Skip, pytest.skip.Exception) as reason:
        skipped = str(reason)
    except Exception as fault:  # noqa: BLE001 (an experiment that breaks is a violation, and the rest goes on)
        violations = [f"the experiment broke: {type(fault).__name__}: {fault}"]
        case.notes.append(_where(fault))
    seconds = time.monotonic() - began
    return Row(found.name, database, runs, tuple(violations), skipped, tuple(case.notes), seconds)


def _where(fault: BaseException) -> str:
    traced = fault.__traceback__
    while (
        traced is not None
        and traced.tb_next is not None
        and "faults" in traced.tb_next.tb_frame.f_code.co_filename
    ):
        traced = traced.tb_next
    with contextlib.suppress(AttributeError):
        assert traced is not None
        return f"{traced.tb_frame.f_code.co_name}:{traced.tb_lineno}"
    return ""
