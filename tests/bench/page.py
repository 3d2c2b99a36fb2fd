"""How long the spend page takes over a ledger of many months: `python -m tests.bench.page URL`."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database
from tests.web.conftest import OWNER_TOKEN, open_office
from tests.web.visits import session_cookie

RUNS = 5
MONTH = "since=2026-11-01&until=2026-12-01"
PAGES = {
    "a month by day and team": f"/spend?{MONTH}",
    "a month by day and team, Berlin": f"/spend?{MONTH}&tz=Europe/Berlin",
    "a month by day and model": f"/spend?{MONTH}&stack=model",
    "a month by day and key": f"/spend?{MONTH}&stack=key",
    "a year by month and team": "/spend?since=2025-12-01&until=2026-12-01",
    "a week by hour and team": "/spend?since=2026-11-20&until=2026-11-27&unit=hour",
    "the newest requests": f"/spend/events?{MONTH}",
}


def median_ms(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return what one of several runs takes by a clock."""
    taken = []
    for _ in range(RUNS):
        started = clock()
        run()
        taken.append((clock() - started) * 1000)
    return statistics.median(taken)


def main() -> None:
    """Ask for each page of a ledger that `tests.seed_ledger` has filled, and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a database that tests.seed_ledger has filled; it is migrated")
    url = parser.parse_args().url
    bring_up_to_date(Database(url))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_office(Path(folder), url) as office,
        office.asking(None) as client,
    ):
        headers = {"cookie": session_cookie(client, OWNER_TOKEN).header}

        def ask(path: str) -> None:
            client.get(path, headers=headers).raise_for_status()

        print("  elapsed       CPU")  # noqa: T201 (a program)
        for title, path in PAGES.items():
            run = partial(ask, path)
            elapsed, used = median_ms(run, time.perf_counter), median_ms(run, time.process_time)
            print(f"  {elapsed:4.0f} ms   {used:4.0f} ms   {title}")  # noqa: T201 (a program)


if __name__ == "__main__":
    main()
