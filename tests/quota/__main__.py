"""Runs everything about budgets and prints a table; exits 1 if anything was violated.

python -m tests.quota [--seeds N] [--kills N] [--only burst,oversized,kills,paused,outage,seeds]
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from functools import partial

from tests.faults.site import POSTGRESQL, SQLITE
from tests.quota import seeds, servers
from tests.quota.servers import SETTINGS, Experiment, Row, Setting

HEADING = (
    f"{'experiment':18}  {'database':10}  workers  servers  {'enforcement':11}  {'measure':8}  "
    f"{'offered':>7}  {'admitted':>8}  {'limit':>14}  {'overshoot':>14}  {'falsely refused':>15}  violations"
)
ALONE = Setting(database=SQLITE)
SHARED = Setting(database=POSTGRESQL)
TWO = Setting(database=POSTGRESQL, servers=2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.quota", description="Budgets under everything.")
    parser.add_argument("--seeds", type=int, default=10_000, help="Worlds with crashes and lost answers.")
    parser.add_argument("--kills", type=int, default=100, help="Real kills, shared by both databases.")
    parser.add_argument("--only", default="", help="Names, with commas.")
    return parser.parse_args()


def _experiments(arguments: argparse.Namespace) -> Iterator[tuple[str, Experiment]]:
    for setting in SETTINGS:
        yield "burst", partial(servers.bursts, setting)
    for setting in (ALONE, SHARED):
        yield "oversized", partial(servers.oversized, setting)
    for setting in (ALONE, SHARED):
        yield "kills", partial(servers.kills, setting, arguments.kills // 2)
    yield "paused", partial(servers.paused, TWO)
    yield "outage", partial(servers.outage, SHARED)
    yield "seeds", partial(_seeds, arguments.seeds)


def _seeds(count: int) -> Iterator[Row]:
    """Q2 and Q4 in process."""
    faults = [fault for _, found in seeds.violations(range(count)) for fault in found]
    yield Row(setting=ALONE, experiment=f"Q2/Q4: {count} seeds", enforcement="strict", faults=tuple(faults))


def _line(row: Row) -> str:
    return (
        f"{row.experiment:18}  {row.setting}  {row.enforcement:11}  {row.measure:8}  {row.offered:7}  "
        f"{row.admitted:8}  {row.limit:14}  {row.overshoot:14}  {row.falsely_refused:15}  {len(row.faults)}"
    )


def _run(experiment: Experiment) -> Iterator[Row]:
    try:
        yield from experiment()
    except Exception as fault:  # noqa: BLE001 (whatever it is, the table says so)
        yield Row(setting=ALONE, experiment="broken", faults=(repr(fault),))


def main() -> int:
    """Run what is asked for, and return the exit status."""
    arguments = _arguments()
    only = set(filter(None, arguments.only.split(",")))
    logging.disable(logging.ERROR)
    violated = False
    sys.stdout.write(f"{HEADING}\n")
    began = time.monotonic()
    for name, experiment in _experiments(arguments):
        if only and name not in only:
            continue
        for row in _run(experiment):
            violated = violated or bool(row.faults)
            sys.stdout.write("\n".join([_line(row), *(f"    {each}" for each in row.faults[:6]), ""]))
            sys.stdout.flush()
    sys.stdout.write(f"{time.monotonic() - began:.0f} s, {'VIOLATED' if violated else 'no violation'}\n")
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
