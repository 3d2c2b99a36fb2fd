"""Measures meter with everything on, and nginx beside it: `python -m benchmarks`, or `make bench`.

All get the same requests in turn, several rounds of them. The processor time of a request is that of the
proxy's process until the last of its events is in the ledger, so that it hardly depends on what else the
machine does. The ledger must hold as many events as the upstream has seen requests, or nothing counts.
"""

import argparse
import sys

from benchmarks import sections
from benchmarks.load import Asked
from benchmarks.measuring import CRASH, METER, Bench, running, write

AT_ONCE = (1, 16, 64)


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="How long each load lasts.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--durability", choices=("crash", "power", "both"), default="both", help="Whether the journal syncs."
    )
    parser.add_argument("--quick", action="store_true", help="16 at once and streams, nothing else.")
    given = parser.parse_args()
    durabilities = {METER: "crash" if given.durability == "crash" else "power"}
    if given.durability == "both" and not given.quick:
        durabilities[CRASH] = "crash"
    with running(durabilities) as bench:
        return _measure(bench, given)


def _measure(bench: Bench, given: argparse.Namespace) -> int:
    for proxy in bench.proxies.values():
        bench.load(proxy, Asked(), at_once=16, seconds=1)
    rows = [
        row
        for many in ((16,) if given.quick else AT_ONCE)
        for row in sections.answers(bench, given.seconds, given.rounds, many)
    ]
    rows += sections.bursts(bench, given.seconds, given.rounds)
    rows += sections.paced(bench, given.rounds)
    # What takes most memory comes first: the most that a process has taken is asked for.
    rows += [] if given.quick else [*sections.memory(bench), *sections.steady(bench)]
    write(rows)
    good = sections.usage_is_counted(bench)
    for (sent, counted, verdict), name in zip(bench.accounts(), bench.meters, strict=True):
        sys.stdout.write(f"{name}: requests {sent}, events in the ledger {counted}; verify: {verdict}\n")
        good = good and sent == counted
    sys.stdout.write(f"failed {bench.failed}\n")
    return 0 if good and not bench.failed else 1


if __name__ == "__main__":
    sys.exit(main())
