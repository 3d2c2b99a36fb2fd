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
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.comparison import before, compare
from meter.core.period import zone
from meter.core.reports import Question
from meter.store import budgets, refusals, reports
from meter.store.database import Database
from meter.store.tables import ROLLUP
from tests import services
from tests.seed_ledger import Shape, seed

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
YEAR = datetime(2025, 12, 1, tzinfo=UTC)
IN_NOVEMBER = datetime(2026, 11, 21, 13, 7, tzinfo=UTC)
RUNS = 9
FEWER = 10


class Taken(NamedTuple):
    """Milliseconds of some runs. The CPU is of this process: SQLite works in it, and PostgreSQL does not."""

    median: float
    fastest: float
    cpu: float


def questions() -> dict[str, Question]:
    """Return what is asked."""
    berlin = zone("Europe/Berlin")
    at_home = {"since": SINCE.replace(tzinfo=berlin), "until": UNTIL.replace(tzinfo=berlin), "tz": berlin}
    month = {"since": SINCE, "until": UNTIL, "tz": UTC}
    year = {"since": YEAR, "until": UNTIL, "tz": UTC}
    asked = [
        ("a month by team and model", ("team", "model"), month),
        ("a month by team and model, Berlin", ("team", "model"), at_home),
        ("the month to date by team and model", ("team", "model"), month | {"until": IN_NOVEMBER}),
        ("a month by key", ("key",), month),
        ("a month by day and team", ("day", "team"), month),
        ("a month by day and team, Berlin", ("day", "team"), at_home),
        ("a month by day and model", ("day", "model"), month),
        ("a month by hour", ("hour",), month),
        ("a year by month and team", ("month", "team"), year),
        ("a year by day", ("day",), year),
    ]
    return {title: Question(by=by, **when) for title, by, when in asked}  # type: ignore[arg-type]


def page(database: Database, stack: str) -> None:
    """Ask what the spend page asks for a month to date: totals and kinds of tokens come with the keys."""
    asked = Question(by=("day", stack), since=SINCE, until=IN_NOVEMBER, tz=UTC)
    reports.answer(database, asked)
    by_key = msgspec.structs.replace(asked, by=("team", "key"))
    compare(reports.answer(database, by_key), reports.answer(database, before(by_key)))
    refusals.refusals(database, asked)
    budgets.standings(database, IN_NOVEMBER)


def measure(database: Database) -> dict[str, Taken]:
    """Return what each question takes."""
    runs: dict[str, Callable[[], object]] = {
        title: partial(reports.answer, database, asked) for title, asked in questions().items()
    }
    for stack in ("team", "model"):
        runs[f"all that the page asks, by day and {stack}"] = partial(page, database, stack)
    return {title: _taken(run) for title, run in runs.items()}


def _taken(run: Callable[[], object]) -> Taken:
    # The first one also reads the file, and compiles the statement.
    run()
    walls, cpus = [], []
    for _ in range(RUNS):
        started, used = time.perf_counter(), time.process_time()
        run()
        walls.append((time.perf_counter() - started) * 1000)
        cpus.append((time.process_time() - used) * 1000)
    return Taken(statistics.median(walls), min(walls), statistics.median(cpus))


@contextmanager
def databases() -> Iterator[dict[str, Callable[[], Database]]]:
    """Give what makes empty databases of both kinds."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        names = iter(range(99))
        yield {
            "SQLite": lambda: Database(f"sqlite:///{Path(folder) / f'{next(names)}.db'}"),
            "PostgreSQL": lambda: Database(stack.enter_context(services.fresh_database())),
        }


def show(kind: str, database: Database) -> None:
    """Print what each question takes, and how much is read for it at most."""
    with database.read_long() as connection:
        lines = {
            grain: connection.scalar(sa.select(sa.func.count()).select_from(table))
            for grain, table in ROLLUP.items()
        }
        events = connection.scalar(sa.select(sa.func.sum(ROLLUP["month"].c.requests)))
    counted = ", ".join(f"{count:,} {grain}s" for grain, count in lines.items())
    print(f"\n{kind}, {events:,} events, lines of {counted}")  # noqa: T201 (a program)
    print("    median  fastest  CPU here, in ms")  # noqa: T201 (a program)
    for title, taken in measure(database).items():
        numbers = "".join(f"{ms:9.0f}" for ms in taken)
        print(f"{numbers}   {title}")  # noqa: T201 (a program)


def main() -> None:
    """Fill both databases with all events and with a tenth of them, in the same lines, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--lines", type=int, help="of quarter hours; a tenth of the events unless given")
    parser.add_argument("--url", help="measure this database, which is filled already")
    given = parser.parse_args()
    shape = Shape(given.events, given.lines or given.events // FEWER)
    if given.url:
        database = Database(given.url)
        bring_up_to_date(database)
        show(str(database.url), database)
        return
    with databases() as makes:
        for kind, make in makes.items():
            for events in (shape.events // FEWER, shape.events):
                database = make()
                seed(database, shape._replace(events=events))
                show(kind, database)
                database.dispose()


if __name__ == "__main__":
    main()
