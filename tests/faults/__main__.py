"""Runs the experiments and prints a table; exits 1 if anything was violated.

python -m tests.faults [--seeds N] [--database sqlite|postgresql|both] [--only F03] [--short]
"""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Iterator

from tests.faults.case import Experiment
from tests.faults.experiments import EXPERIMENTS, experiment, runs_of
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
    return parser.parse_args()


def _asked(arguments: argparse.Namespace, found: Experiment) -> bool:
    names = set(filter(None, arguments.only.upper().split(",")))
    return not names or bool(names & set(found.name.split("/")))


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    databases = [SQLITE, POSTGRESQL] if arguments.database == "both" else [arguments.database]
    for found in filter(lambda each: _asked(arguments, each), EXPERIMENTS):
        for database in databases:
            if database in found.databases:
                full = not arguments.short
                runs = arguments.runs or runs_of(found, database, full=full)
                if runs:
                    name = found.name.split("/")[0]
                    yield experiment(name, runs, database, full=full, seed=arguments.seed)


def _seeds(arguments: argparse.Namespace) -> Iterator[Row]:
    """Run the crashes in process, at every marked await, with many seeds."""
    if arguments.only or arguments.short or importlib.util.find_spec("tests.faults.seeds") is None:
        return
    seeds = importlib.import_module("tests.faults.seeds")
    for row in seeds.run_seeds(arguments.seeds):
        said = f"{row.violations} of {row.runs} seeds; python -m tests.faults.seeds says which"
        yield Row(row.experiment, "in process", row.runs, (said,) if row.violations else ())


def main() -> int:
    """Run what is asked for, and return the exit status."""
    arguments = _arguments()
    # A request that a killed server has not sent to its end is no news here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
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
