"""What meter takes after many requests: `python -m benchmarks.long`, or `make bench-memory`.

JSON and streams in turn, 16 at once. Its memory is looked at after a tenth of the requests, half and all:
what it keeps of each request would show between the last two.
"""

import argparse
import sys

from benchmarks.load import Asked
from benchmarks.measuring import METER, running
from benchmarks.processes import memory_bytes
from benchmarks.proxies import Proxy

REQUESTS = 1_000_000
LOOKS = (0.1, 0.5, 1.0)
LOAD_SECONDS = 20
LOADS = (Asked(), Asked(stream=True), Asked(), Asked(stream=True, usage=False))
AT_ONCE = 16
# Between the last two looks: ten bytes each of half a million requests, less than anything that is kept.
GROWTH_BYTES_MAX = 5_000_000


def main() -> int:
    """Send, look and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--durability", choices=("crash", "power"), default="power")
    given = parser.parse_args()
    with running({METER: given.durability}) as bench:
        meter = bench.proxies[METER]
        done, taken = 0, []
        for look in LOOKS:
            while done < look * given.requests:
                # Whole seconds, as wrk has them; short enough that few requests are sent beyond the look.
                seconds = min(LOAD_SECONDS, max(1, given.requests // 10_000))
                for asked in LOADS:
                    done += bench.load(meter, asked, at_once=AT_ONCE, seconds=seconds).requests
            bench.meters[METER].wait_until_shipped()
            taken.append(memory_bytes(meter.pid))
            _tell(done, meter)
        ((sent, counted, verdict),) = bench.accounts()
        sys.stdout.write(f"requests {sent}, events in the ledger {counted}, failed {bench.failed}; ")
        sys.stdout.write(f"verify: {verdict}\n")
        grown = taken[-1] - taken[-2]
        sys.stdout.write(f"grown between the last two: {grown / 1e6:.1f} MB\n")
        return 0 if sent == counted and not bench.failed and grown <= GROWTH_BYTES_MAX else 1


def _tell(done: int, meter: Proxy) -> None:
    now, most = memory_bytes(meter.pid) / 1e6, memory_bytes(meter.pid, peak=True) / 1e6
    sys.stdout.write(f"after {done:>9,} requests: {now:.1f} MB, at most {most:.1f} MB\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
