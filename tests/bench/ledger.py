"""How many events a second one shipper gets into the ledger: `python -m tests.bench.ledger`."""

import tempfile
import time
from datetime import timedelta
from random import Random

from meter.cli.migrations import bring_up_to_date
from meter.store import ledger
from meter.store.partitions import make_partitions
from tests import services
from tests.store.conftest import NOW, closing_database, random_event

EVENTS = 6000
BATCHES = (50, 500)


def main() -> None:
    """Measure both databases, with small and with full batches."""
    for size in BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            _measure("SQLite", f"sqlite:///{folder}/meter.db", size)
        with services.fresh_database() as url:
            _measure("PostgreSQL", url, size)


def _measure(name: str, url: str, size: int) -> None:
    random = Random(1)
    events = [random_event(random, NOW - timedelta(hours=1), NOW) for _ in range(EVENTS)]
    with closing_database(url) as database:
        bring_up_to_date(database)
        make_partitions(database, NOW)
        began, cpu = time.perf_counter(), time.process_time()
        for at in range(0, EVENTS, size):
            ledger.append(database, events[at : at + size], NOW)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    rate, each = EVENTS / seconds, used / EVENTS * 1e6
    print(f"{name:<11} batches of {size:>3}: {rate:>6.0f} events/s, {each:.0f} µs of CPU here an event")  # noqa: T201 (a benchmark prints)


if __name__ == "__main__":
    main()
