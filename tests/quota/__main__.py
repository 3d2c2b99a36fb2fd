"""Runs everything about budgets and prints a table; exits 1 if anything was violated.

python -m tests.quota [--seeds N] [--kills N] [--jobs N] [--only burst,many,oversized,levels,switch,...]
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.quota import experiments
from tests.quota.servers import Row

HEADING = (
    f"{'experiment':18}  {'database':10}  workers  servers  {'enforcement':11}  {'measure':8}  "
    f"{'offered':>7}  {'admitted':>8}  {'limit':>14}  {'overshoot':>14}  {'falsely refused':>15}  violations"
)
# What a whole run has to inject, in all: crashes, cancels and time-outs.
INJECTED_MIN = 10_000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.quota", description="Budgets under everything.")
    parser.add_argument("--seeds", type=int, default=4000, help="Worlds with crashes and lost answers.")
    parser.add_argument("--kills", type=int, default=100, help="Real kills, shared by both databases.")
    parser.add_argument("--jobs", type=int, default=1, help="Experiments at the same time.")
    parser.add_argument("--only", default="", help="Names, with commas.")
    return parser.parse_args()


def _line(row: Row) -> str:
    return (
        f"{row.experiment:18}  {row.setting}  {row.enforcement:11}  {row.measure:8}  {row.offered:7}  "
        f"{row.admitted:8}  {row.limit:14}  {row.overshoot:14}  {row.falsely_refused:15}  {len(row.faults)}"
    )


def _told(rows: Sequence[Row], *, whole: bool) -> list[str]:
    """Say what was injected, and what is wrong in all."""
    crashes, cancels, unheard = (
        sum(getattr(row, name) for row in rows) for name in ("crashes", "cancels", "unheard")
    )
    left, kills = sum(row.left for row in rows), sum(row.kills for row in rows)
    injected = crashes + cancels + unheard + left
    sys.stdout.write(
        f"injected {injected}: {crashes} crashes, {cancels} cancels, {unheard} answers of the database lost, "
        f"{left} clients and upstreams that left or stalled; and {kills} processes killed\n"
    )
    wrong = [
        f"{row.experiment}: {row.falsely_refused} falsely refused" for row in rows if row.falsely_refused
    ]
    strict = [row for row in rows if row.enforcement == "strict" and row.overshoot]
    wrong += [f"{row.experiment}: passed by {row.overshoot}" for row in strict]
    if whole and injected < INJECTED_MIN:
        wrong.append(f"a whole run has to inject {INJECTED_MIN}: give more --seeds")
    return wrong


def main() -> int:
    """Run what is asked for, and return the exit status."""
    arguments = _arguments()
    only = set(filter(None, arguments.only.split(",")))
    found = experiments.experiments(kills=arguments.kills, worlds=arguments.seeds)
    chosen = [each for each in found if not only or each.name in only]
    sys.stdout.write(f"{HEADING}\n")
    began = time.monotonic()
    rows: list[Row] = []
    # Not by forking: each has threads and loops of its own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        for done in pool.map(experiments.run, chosen):
            rows += done
            for row in done:
                sys.stdout.write("\n".join([_line(row), *(f"    {each}" for each in row.faults[:6]), ""]))
            sys.stdout.flush()
    wrong = _told(rows, whole=not only)
    sys.stdout.writelines(f"{each}\n" for each in wrong)
    violated = bool(wrong) or any(row.faults for row in rows)
    sys.stdout.write(f"{time.monotonic() - began:.0f} s, {'VIOLATED' if violated else 'no violation'}\n")
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
