"""How many events a second one shipper gets into the ledger: `python -m tests.bench.ledger`.

With the rollup, three budgets, and what was reserved of them, as they are for every event of a server.
"""

import sys
import tempfile
import time
from datetime import timedelta
from random import Random

import msgspec

from meter.cli.migrations import bring_up_to_date
from meter.core.allowances import Wish
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.events import Reserved, UsageEvent
from meter.store import allowances, budgets
from meter.store.database import Database
from meter.store.partitions import make_partitions
from tests import services
from tests.store.conftest import NOW, closing_database, random_event

EVENTS = 6000
BATCHES = (50, 250, 1000)
LIMIT = 10**17
HOLDER = "bench"


def main() -> None:
    """Measure both databases, with small and with full batches."""
    for size in BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            _measure("SQLite", f"sqlite:///{folder}/meter.db", size)
        with services.fresh_database() as url:
            _measure("PostgreSQL", url, size)


def _measure(name: str, url: str, size: int) -> None:
    with closing_database(url) as database:
        bring_up_to_date(database)
        make_partitions(database, NOW)
        events = _events(_reserve(database))
        began, cpu = time.perf_counter(), time.process_time()
        for at in range(0, EVENTS, size):
            allowances.settle(database, HOLDER, events[at : at + size], NOW)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    rate, each = EVENTS / seconds, used / EVENTS * 1e6
    sys.stdout.write(
        f"{name:<11} batches of {size:>4}: {rate:>6.0f} events/s, {each:.0f} us of CPU here an event\n"
    )


def _reserve(database: Database) -> tuple[Reserved, ...]:
    """Make a budget of each measure, and reserve some of each."""
    for measure in Measure:
        made = Budget(
            id=measure,
            owner_kind=OwnerKind.ORG,
            measure=measure,
            period="month",
            limit=LIMIT,
            enforcement=Enforcement.STRICT,
        )
        budgets.put(database, made, Signature("bench", NOW))
    wishes = [
        Wish(budget.id, budget.span(NOW), 0, LIMIT // 10**6, LIMIT // 10**3)
        for budget in budgets.load(database)
    ]
    shares = allowances.reserve(database, HOLDER, wishes, [], NOW).shares
    return tuple(Reserved(share.allowance_id, 1000) for share in shares if share is not None)


def _events(reserved: tuple[Reserved, ...]) -> list[UsageEvent]:
    random = Random(1)
    made = (random_event(random, NOW - timedelta(hours=1), NOW) for _ in range(EVENTS))
    return [msgspec.structs.replace(event, reserved=reserved) for event in made]


if __name__ == "__main__":
    main()
