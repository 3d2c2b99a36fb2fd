"""Journals whose process is gone: their settles are shipped, their open intents become events, each once.

A journal's lock is held for as long as its process lives, also while that is only paused. Whoever gets the
lock has the journal to itself; if it dies in turn, the next one begins again, and the ledger counts each
event once.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from meter.core.events import UsageEvent
from meter.journal.backlog import Backlog, left_open
from meter.journal.folder import DRAFT, LOCK, Folder
from meter.journal.shipper import BATCH_EVENTS_MAX, Abandoned, Delivery

# A database that fails over may lose its last seconds; for so long they can be shipped again.
KEPT_SECONDS = 24 * 3600.0

log = logging.getLogger(__name__)


def folders(root: Path) -> Iterator[Folder]:
    """Yield every journal's folder, but for those that are only being made.

    A volume's own folders, such as `lost+found`, are none of ours.
    """
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.name.startswith(DRAFT) and _is_journal(path):
            yield Folder(path)


def _is_journal(path: Path) -> bool:
    return os.access(path, os.X_OK) and ((path / LOCK).exists() or any(path.glob("*.log")))


def adopt(root: Path, delivery: Delivery) -> None:
    """Finish the journals of all processes that are gone."""
    for folder in folders(root):
        try:
            _adopt(folder, delivery)
        except Abandoned:
            raise
        except Exception:
            # One that cannot be read must not keep the others.
            log.exception("the journal of %s cannot be adopted", folder.holder)


def _adopt(folder: Folder, delivery: Delivery) -> None:
    if folder.done.exists():
        return
    lock = folder.lock()
    if lock is None:
        return
    try:
        # Somebody else may have finished it between the two looks.
        if not folder.done.exists():
            _finish(folder, delivery)
    finally:
        os.close(lock)


def prune(root: Path, *, now: float) -> None:
    """Delete the folders of finished journals after a day; `now` is Unix time."""
    for folder in folders(root):
        if folder.done.exists() and now - folder.done.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(folder.path)


def prune_segments(folder: Folder, *, before: int, now: float, pressed: bool) -> int:
    """Delete shipped segments after a day, or at once where room is short; returns the bytes freed."""
    freed = 0
    for number in folder.segments():
        stat = folder.segment(number).stat()
        if number < before and (pressed or now - stat.st_mtime > KEPT_SECONDS):
            folder.segment(number).unlink()
            freed += stat.st_size
    return freed


def unshipped(root: Path, *, older_than_seconds: float) -> list[str]:
    """Say of every journal what it holds that the ledger should have by now, a sentence each."""
    sentences = []
    before = time.time() - older_than_seconds
    for folder in _unfinished(root):
        late = [event for event in _waiting(folder) if _ended_at(event) < before]
        if late:
            sentences.append(f"journal {folder.holder}: {len(late)} settled events are not in the ledger")
    return sentences


def unshipped_between(root: Path, since: datetime, until: datetime) -> dict[str, int]:
    """Count, for every journal that has some, the attempts of a time that the ledger does not have yet."""
    counts = {}
    for folder in _unfinished(root):
        attempts = (*_waiting(folder), *left_open(folder))
        count = sum(since <= event.started_at < until for event in attempts)
        if count:
            counts[folder.holder] = count
    return counts


def _unfinished(root: Path) -> Iterator[Folder]:
    return (folder for folder in folders(root) if not folder.done.exists())


def _waiting(folder: Folder) -> list[UsageEvent]:
    batch = Backlog(folder).take(10**9)
    return batch.events if batch else []


def _ended_at(event: UsageEvent) -> float:
    return event.started_at.timestamp() + (event.duration_ms or 0) / 1000


def _finish(folder: Folder, delivery: Delivery) -> None:
    open_from = folder.read_cursor().open_from
    backlog = Backlog(folder, open_from=lambda: open_from)
    while (batch := backlog.take(BATCH_EVENTS_MAX)) is not None:
        for lost in batch.lost:
            delivery.quarantine.keep_lost(folder.holder, lost)
        delivery.deliver(batch.events)
        backlog.acknowledge(batch)
    events = left_open(folder, delivery.interrupted)
    for at in range(0, len(events), BATCH_EVENTS_MAX):
        delivery.deliver(events[at : at + BATCH_EVENTS_MAX])
    delivery.finished(folder.holder, events)
    log.warning("adopted the journal of %s: %d attempts were interrupted", folder.holder, len(events))
    folder.done.touch(mode=0o600)
