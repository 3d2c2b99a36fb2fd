"""F23 and F24: journals that are delivered twice, come from another server, or from another version."""

import asyncio
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from meter.core.events import uuid7
from meter.journal.folder import CURSOR, LOCK
from meter.journal.quarantine import FILE, Quarantine
from meter.journal.recovery import adopt
from meter.journal.segment import frame
from meter.journal.shipper import Delivery
from meter.store import ledger
from meter.store.failures import RowRefused
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm
from tests.faults.damage import quarantined
from tests.faults.reconciler import KILLED
from tests.faults.scale import neighbour
from tests.faults.script import Plan
from tests.faults.signals import all_adopted, load_and_kill
from tests.faults.site import POSTGRESQL, Site
from tests.faults.traffic import Got

THREAD_SECONDS_MAX = 60.0


def f23(case: Case) -> list[str]:
    """Deliver a journal by two shippers at once, and a copy of it again: each event counts once."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            prefix = f"f23-{run}"
            gots = _crash(site, case, prefix, run)
            elsewhere = site.data_dir.parent / f"elsewhere-{run}"
            elsewhere.mkdir()
            crashed = site.journals()
            for folder in [path for path in crashed if not (path / "done").exists()]:
                _copy(folder, elsewhere / folder.name)
                _copy(folder, folder.with_name(f"{folder.name}-again"))
            twin = threading.Thread(target=_ship, args=(site, elsewhere))
            twin.start()
            crashed = site.journals()
            site.start()
            found += all_adopted(crashed)
            twin.join(THREAD_SECONDS_MAX)
            found += reconciler.reconcile(site, gots, f"{prefix}-", KILLED)
            found += all_adopted(elsewhere.iterdir())
        return found + calm(site, "f23c", 0, told=case.full)


def _crash(site: Site, case: Case, prefix: str, run: int) -> list[Got]:
    site.script.play(Plan(pieces=4, pause=0.01))
    # A server that has just been started takes its time until it answers.
    first = asyncio.run(traffic.ask(site.url, site.key, f"{prefix}-first"))
    return [first, *asyncio.run(load_and_kill(site, prefix, case.random(run).uniform(0.3, 0.8)))]


def _copy(folder: Path, target: Path) -> None:
    """Copy a journal as if nothing of it had been shipped."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(CURSOR, LOCK))


def _ship(site: Site, root: Path) -> None:
    """Adopt journals as another server on the same database would."""
    delivery = Delivery(
        sink=lambda events: ledger.append(site.database, events, datetime.now(UTC)),
        refusal=RowRefused,
        quarantine=Quarantine(root.parent),
        abandoned=threading.Event(),
    )
    adopt(root, delivery)


def f24(case: Case) -> list[str]:
    """Copy a journal of another server, one of the first version, and one of a later one: all are read."""
    found: list[str] = []
    with case.site() as site:
        site.start()
        other = neighbour(site, "other")
        if case.database != POSTGRESQL:
            other.key = ""
        try:
            for run in range(case.runs):
                other.start()
                gots = _crash(other, case, f"f24-{run}", run)
                site.kill()
                for folder in [path for path in other.journals() if not (path / "done").exists()]:
                    _copy(folder, site.data_dir / "journal" / f"other-{run}-{folder.name}")
                _write_others(site.data_dir / "journal", case, run)
                crashed = site.journals()
                site.start()
                found += all_adopted(crashed)
                found += reconciler.reconcile(site, gots, f"f24-{run}-", KILLED)
                found += _others_arrived(site, run, quarantined(site))
        finally:
            other.close()
        return found + calm(site, "f24c", 0, told=case.full)


def _write_others(root: Path, case: Case, run: int) -> None:
    """Write a journal as the first version wrote it, and another one as a later version may."""
    chance = case.random(run)
    for version, extra in (("first", {}), ("later", {"of a later version": {"a": [1, 2]}})):
        now = datetime.now(UTC)
        ids = [uuid7(int(now.timestamp() * 1000), chance.randbytes(10)) for _ in range(2)]
        shared = {"started_at": now, "team_id": "t", "key_id": "k", "route": "chat.completions"}
        shared |= {"upstream": "default", "stream": False} | extra
        model = f"f24-{version}-{run}"
        attempts = [shared | {"event_id": each, "model": model, "prompt_estimate": 7} for each in ids]
        event = shared | {"event_id": ids[0], "model_requested": model, "outcome": "ok", "status": 200}
        event |= {"usage_source": "reported", "prompt_tokens": 3, "completion_tokens": 4}
        records: list[dict[str, object]] = [{"type": "i", "attempt": attempt} for attempt in attempts]
        records += [{"type": "s", "event": event}, {"type": "p", "event_id": ids[1], "emitted_tokens": 5}]
        records += [{"type": "of a later version"}] if extra else []
        folder = root / f"{version}-{run}"
        folder.mkdir(mode=0o700)
        segment = b"".join(frame(msgspec.msgpack.encode(record)) for record in records)
        (folder / "00000001.log").write_bytes(segment)


def _others_arrived(site: Site, run: int, unreadable: int) -> list[str]:
    found = []
    for version in ("first", "later"):
        events = site.events(f"f24-{version}-{run}").get(f"f24-{version}-{run}", [])
        seen = sorted((event.outcome, event.prompt_tokens, event.completion_tokens) for event in events)
        if seen != [("interrupted", 7, 5), ("ok", 3, 4)]:
            found.append(f"F24: of the journal of the {version} version came {seen}")
    # Whoever has looked at what could not be read puts it away.
    (site.data_dir / "journal" / FILE).unlink(missing_ok=True)
    said = [] if unreadable == 1 else [f"I12: {unreadable} records are said to be unreadable, and not 1"]
    return found + said


EXPERIMENTS = (
    Experiment("F23", f23, 3, 0),
    Experiment("F24", f24, 2, 0),
)
