"""F31 to F33: a database that has no room, gives up transactions, or refuses a row."""

import asyncio
import os
import pwd
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg

from meter.journal.quarantine import FILE
from tests import services
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm, failures
from tests.faults.damage import fill, ledger_held, quarantined, small_disk
from tests.faults.scale import forget_shipping
from tests.faults.script import Plan
from tests.faults.site import POSTGRESQL, SQLITE, Site
from tests.faults.traffic import Got

ON = (POSTGRESQL,)
CLIENTS = 8
ROOM = "40m"
BATCH_REQUESTS = 500
AT_ONCE = 50
ARRIVED_SECONDS_MAX = 60.0

# Half of the inserts end like a transaction that lost to another one; the sequence counts them, since it does
# not take part in the transactions that are given up.
LOSE_HALF = """
CREATE SEQUENCE lost;
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.5 THEN
        PERFORM nextval('lost');
        RAISE EXCEPTION 'lost to another'
            USING ERRCODE = CASE WHEN random() < 0.5 THEN '40P01' ELSE '40001' END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER lose AFTER INSERT ON usage_events FOR EACH STATEMENT EXECUTE FUNCTION lose()
"""
# What is there already stays: the one of the run before.
REFUSE_ON_POSTGRESQL = (
    "ALTER TABLE usage_events ADD CONSTRAINT bad CHECK (model_requested NOT LIKE '%bad') NOT VALID"
)
REFUSE_ON_SQLITE = """
CREATE TRIGGER bad BEFORE INSERT ON usage_events WHEN NEW.model_requested LIKE '%bad'
BEGIN SELECT RAISE(ABORT, 'bad'); END
"""


async def _load(site: Site, prefix: str, seconds: float) -> list[Got]:
    return await traffic.load(
        site.url, site.key, prefix, clients=CLIENTS, seconds=seconds, stream=False, pause=0.02
    )


def f31(case: Case) -> list[str]:
    """Fill the database's disk under load: requests go on, it is said, and the ledger has all in the end."""
    found: list[str] = []
    with _small_database(case) as (site, ballast):
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f31-{run}"
            gots = asyncio.run(_load(site, f"{prefix}-room", 1))
            said = site.log.count("the ledger took no events")
            fill(ballast)
            gots += asyncio.run(_load(site, f"{prefix}-full", 20 if case.full else 5))
            waiting = site.counted("meter_journal_records")
            alarmed = site.log.count("the ledger took no events") > said
            ballast.unlink()
            found += [] if waiting and alarmed else [f"F31: {waiting:.0f} wait, and the log says {alarmed}"]
            found += failures(gots, "requests while the database's disk was full")
            found += reconciler.reconcile(site, gots, f"{prefix}-")
            case.notes.append(f"{len(gots)} requests, {waiting:.0f} waited for room")
            settled += len(gots)
        return found + calm(site, "f31c", settled, told=case.full)


@contextmanager
def _small_database(case: Case) -> Iterator[tuple[Site, Path]]:
    """Give a site whose database has a disk of its own, and a file's name on that disk."""
    with ExitStack() as stack:
        if case.database == SQLITE:
            site = stack.enter_context(case.site())
            stack.enter_context(small_disk(site.data_dir, ROOM))
            # The journal has another one.
            stack.enter_context(small_disk(site.data_dir / "journal", ROOM))
            stack.callback(site.close)
            yield site, site.data_dir / "ballast"
            return
        cluster = stack.enter_context(services.cluster())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-disk-")))
        folder.chmod(0o755)
        place = folder / "place"
        stack.enter_context(small_disk(place, ROOM))
        owner = pwd.getpwnam("postgres")
        os.chown(place, owner.pw_uid, owner.pw_gid)
        with closing(psycopg.connect(cluster.url, autocommit=True)) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
            connection.execute(b"CREATE DATABASE metered TABLESPACE small")
        url = cluster.url.removesuffix("/postgres") + "/metered"
        # The database lives as long as somebody looks into it.
        stack.callback(cluster.stop)
        site = stack.enter_context(case.site(url))
        yield site, place / "ballast"


def f32(case: Case) -> list[str]:
    """Have half of the ledger's transactions end in a deadlock or a serialization failure."""
    found: list[str] = []
    with services.fresh_database() as url, case.site(url) as site:
        site.start()
        settled = 0
        for run in range(case.runs):
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f32-{run}-"
            gots = [asyncio.run(traffic.ask(site.url, site.key, f"{prefix}first", stream=False))]
            with closing(psycopg.connect(url, autocommit=True)) as connection:
                connection.execute(LOSE_HALF.encode())
                gots += asyncio.run(_load(site, prefix, 10 if case.full else 4))
                row = connection.execute("SELECT last_value FROM lost").fetchone()
                connection.execute("DROP TRIGGER lose ON usage_events")
                connection.execute("DROP FUNCTION lose; DROP SEQUENCE lost")
            lost = row[0] if row else 0
            case.notes.append(f"{lost} transactions lost, {len(gots)} requests")
            found += [] if lost > 1 else ["no transaction lost: the experiment shows nothing"]
            found += failures(gots, "requests while transactions lost")
            found += reconciler.reconcile(site, gots, prefix)
            settled += len(gots)
        return found + calm(site, "f32c", settled, told=case.full)


def f33(case: Case) -> list[str]:
    """Have the database refuse one event of a batch of 500: the others land, and it is kept and said."""
    found: list[str] = []
    with case.site() as site:
        for run in range(case.runs):
            site.start()
            site.script.play(Plan(pieces=1, pause=0, streams=False))
            prefix = f"f33-{run}-"
            gots = [asyncio.run(traffic.ask(site.url, site.key, f"{prefix}first", stream=False))]
            _execute(site, REFUSE_ON_SQLITE, REFUSE_ON_POSTGRESQL)
            before = quarantined(site)
            with ledger_held(site):
                gots += asyncio.run(_batch(site, prefix))
            found += failures(gots, "requests of a batch with a bad event")
            arrived = _arrived(site, prefix, len(gots) - 1)
            kept, said = quarantined(site) - before, site.counted("meter_quarantined_records")
            if (arrived, kept, said) != (len(gots) - 1, 1, before + 1):
                found.append(f"F33: of {len(gots)} events {arrived} landed, {kept} kept, {said:.0f} told")
            found += [] if "the ledger refuses event" in site.log else ["I12: the log says nothing of it"]
            site.end()
            # Once the database takes it, it may be shipped again, with all the others, which count once.
            _execute(site, "DROP TRIGGER bad", "ALTER TABLE usage_events DROP CONSTRAINT bad")
            forget_shipping(site)
            (site.data_dir / "journal" / FILE).unlink(missing_ok=True)
            site.start()
            found += reconciler.reconcile(site, gots, prefix)
            site.end()
        site.start()
        return found + calm(site, "f33c", 0, told=case.full)


async def _batch(site: Site, prefix: str) -> list[Got]:
    names = [f"{prefix}{number}" for number in range(BATCH_REQUESTS - 1)]
    names.insert(BATCH_REQUESTS // 3, f"{prefix}bad")
    gots: list[Got] = []
    for at in range(0, len(names), AT_ONCE):
        gots += await traffic.all_at_once(site.url, site.key, names[at : at + AT_ONCE], stream=False)
    return gots


def _arrived(site: Site, prefix: str, count: int) -> int:
    """Wait for so many events, and for the one that is refused, and count them."""
    deadline = time.monotonic() + ARRIVED_SECONDS_MAX
    while site.counted("meter_journal_records") and time.monotonic() < deadline:
        time.sleep(0.05)
    while (seen := len(site.events(prefix))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def _execute(site: Site, on_sqlite: str, on_postgresql: str) -> None:
    if site.database_url is None:
        with closing(sqlite3.connect(site.data_dir / "meter.db", isolation_level=None)) as connection:
            connection.execute(on_sqlite)
    else:
        with closing(psycopg.connect(site.database_url, autocommit=True)) as connection:
            connection.execute(on_postgresql.encode())


EXPERIMENTS = (
    Experiment("F31", f31, 2, 0),
    Experiment("F32", f32, 2, 0, databases=ON),
    Experiment("F33", f33, 2, 0),
)
