"""Runs the experiments and prints a table; exits 1 if anything was violated.

python -m tests.faults [--seeds N] [--database sqlite|postgresql|both] [--only F03] [--short] [--jobs N]
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

from tests.faults.case import Experiment
from tests.faults.experiments import EXPERIMENTS, experiment, hush, runs_of
from tests.faults.site import POSTGRESQL, SQLITE
from tests.faults.table import Row, lines

SEEDS = 2000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Experiments with faults.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="Runs of the crashes in process.")
    parser.add_argument("--database", choices=[SQLITE, POSTGRESQL, "both"], default="both")
    parser.add_argument("--only", default="", help="Names, with commas: F03,F26.")
    parser.add_argument("--runs", type=int, help="So many runs of each, instead of its own number.")
    parser.add_argument("--seed", type=int, default=0, help="Where the random numbers begin.")
    parser.add_argument("--short", action="store_true", help="The short set, as pytest runs it.")
    parser.add_argument("--jobs", type=int, default=1, help="So many experiments at the same time.")
    return parser.parse_args()


def _asked(arguments: argparse.Namespace, found: Experiment) -> bool:
    names = set(filter(None, arguments.only.upper().split(",")))
    return not names or bool(names & set(found.name.split("/")))


def _tasks(arguments: argparse.Namespace) -> Iterator[Callable[[], Row]]:
    databases = [SQLITE, POSTGRESQL] if arguments.database == "both" else [arguments.database]
    full = not arguments.short
    for found in filter(lambda each: _asked(arguments, each), EXPERIMENTS):
        for database in filter(lambda each: each in found.databases, databases):
            runs = arguments.runs or runs_of(found, database, full=full)
            if runs:
                name = found.name.split("/")[0]
                yield partial(experiment, name, runs, database, full=full, seed=arguments.seed)


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Run the experiments, each in a process of its own where several go at the same time."""
    if arguments.jobs == 1:
        yield from (task() for task in _tasks(arguments))
        return
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), initializer=hush) as pool:
        running = [pool.submit(task) for task in _tasks(arguments)]
        yield from (each.result() for each in as_completed(running))


def _seeds(arguments: argparse.Namespace) -> Iterator[Row]:
    """Run the crashes in process, at every marked await, with many seeds."""
    if arguments.only or arguments.short or importlib.util.find_spec("tests.faults.seeds") is None:
        return
    seeds = importlib.import_module("tests.faults.seeds")
    yield from seeds.run_seeds(arguments.seeds)


def main() -> int:
    """Run what is asked for, and return the exit status."""
    arguments = _arguments()
    hush()
    rows: list[Row] = []
    for row in (each for source in (_seeds, _rows) for each in source(arguments)):
        rows.append(row)
        sys.stdout.write("\n".join(lines([row])[1:]) + "\n")
        sys.stdout.flush()
    if len(rows) > 1:
        sys.stdout.write("\n" + "\n".join(lines(rows)) + "\n")
    return 1 if any(row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
