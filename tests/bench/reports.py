"""How long reports take over a ledger of many months: `python -m tests.bench.reports`."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from meter.core.period import zone
from meter.core.reports import Question
from meter.store import reports
from meter.store.database import Database
from meter.store.tables import ROLLUP
from tests import services
from tests.seed_ledger import Shape, seed

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
YEAR = datetime(2025, 12, 1, tzinfo=UTC)
RUNS = 5
FEWER = 10


def questions() -> dict[str, Question]:
    """Return what is asked."""
    berlin = zone("Europe/Berlin")
    at_home = {"since": SINCE.replace(tzinfo=berlin), "until": UNTIL.replace(tzinfo=berlin), "tz": berlin}
    month = {"since": SINCE, "until": UNTIL, "tz": UTC}
    year = {"since": YEAR, "until": UNTIL, "tz": UTC}
    asked = [
        ("a month by team and model", ("team", "model"), month),
        ("a month by team and model, Berlin", ("team", "model"), at_home),
        ("a month by key", ("key",), month),
        ("a month by day and team", ("day", "team"), month),
        ("a month by day and team, Berlin", ("day", "team"), at_home),
        ("a month by hour", ("hour",), month),
        ("20 days by team and model", ("team", "model"), month | {"until": UNTIL.replace(month=11, day=21)}),
        ("a year by month and team", ("month", "team"), year),
        ("a year by day", ("day",), year),
    ]
    return {title: Question(by=by, **when) for title, by, when in asked}  # type: ignore[arg-type]


def measure(database: Database) -> dict[str, float]:
    """Return the milliseconds of each question, the median of some runs."""
    return {
        title: _median_ms(partial(reports.answer, database, asked)) for title, asked in questions().items()
    }


def _median_ms(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


@contextmanager
def databases() -> Iterator[dict[str, Callable[[], Database]]]:
    """Give what makes empty databases of both kinds."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        names = iter(range(99))
        yield {
            "SQLite": lambda: Database(f"sqlite:///{Path(folder) / f'{next(names)}.db'}"),
            "PostgreSQL": lambda: Database(stack.enter_context(services.fresh_database())),
        }


def show(kind: str, shape: Shape, database: Database) -> None:
    """Print what each question takes, and how much is read for it at most."""
    with database.read_long() as connection:
        lines = {
            grain: connection.scalar(sa.select(sa.func.count()).select_from(table))
            for grain, table in ROLLUP.items()
        }
    counted = ", ".join(f"{count:,} {grain}s" for grain, count in lines.items())
    print(f"\n{kind}, {shape.events:,} events, lines of {counted}")  # noqa: T201 (a program)
    for title, ms in measure(database).items():
        print(f"  {ms:8.0f} ms  {title}")  # noqa: T201 (a program)


def main() -> None:
    """Fill both databases with all events and with a tenth of them, in the same lines, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--lines", type=int, help="of quarter hours; a tenth of the events unless given")
    parser.add_argument("--url", help="measure this database, which is filled already")
    given = parser.parse_args()
    shape = Shape(given.events, given.lines or given.events // FEWER)
    if given.url:
        show(given.url, shape, Database(given.url))
        return
    with databases() as makes:
        for kind, make in makes.items():
            for events in (shape.events // FEWER, shape.events):
                database = make()
                seed(database, shape._replace(events=events))
                show(kind, shape._replace(events=events), database)
                database.dispose()


if __name__ == "__main__":
    main()
