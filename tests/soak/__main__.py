"""Runs a soak on SQLite and on PostgreSQL, and prints a table; exits with 1 if anything was violated.

python -m tests.soak [--minutes 30] [--database sqlite|postgresql|both] [--seed N]
"""

import argparse
import sys
import time

from tests.faults.experiments import hush
from tests.faults.site import POSTGRESQL, SQLITE
from tests.soak.soak import Course, Told, run


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="A server under load and faults."
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="So long on each database.")
    parser.add_argument("--database", choices=[SQLITE, POSTGRESQL, "both"], default="both")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="Which faults come when.")
    return parser.parse_args()


def _soak(course: Course) -> Told:
    _say(f"\n{course.database}, {course.seconds / 60:g} minutes, seed {course.seed}")
    told = run(course, _say)
    _say(f"{told.requests} requests, {len(told.done)} faults, {len(told.violations)} violations")
    for violation in told.violations:
        _say(f"  {violation}")
    return told


def main() -> int:
    """Run what is asked for, and return the exit status."""
    arguments = _arguments()
    hush()
    databases = [SQLITE, POSTGRESQL] if arguments.database == "both" else [arguments.database]
    told = [
        _soak(Course(database=database, seconds=60 * arguments.minutes, seed=arguments.seed))
        for database in databases
    ]
    return 1 if any(each.violations for each in told) else 0


if __name__ == "__main__":
    sys.exit(main())
