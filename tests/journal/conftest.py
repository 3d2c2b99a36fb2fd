"""Makers for tests of the journal: folders, records, storages with faults, and a ledger in memory."""

import asyncio
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meter.core.attempts import Attempt, interrupted
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.journal.folder import Folder
from meter.journal.quarantine import FILE, Quarantine
from meter.journal.records import Intent, Progress, Record, Settle, encode
from meter.journal.segment import frame
from meter.journal.shipper import Delivery
from meter.journal.storage import DISK, Storage

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WAIT_SECONDS_MAX = 20.0


class Refused(Exception):
    """What the sinks of these tests raise for an event that they will never take."""


class Books:
    """A ledger in memory, with faults: what it has, and how often it was asked."""

    def __init__(self, faults: Sequence[Exception] = (), *, refused: Sequence[str] = ()) -> None:
        self._faults = list(faults)
        self._refused = set(refused)
        self.commits_first = False
        """Whether a fault comes after the commit."""
        self.calls = 0
        self.events: dict[str, UsageEvent] = {}
        self.deliveries: list[str] = []

    def __call__(self, events: Sequence[UsageEvent], /) -> int:
        """Append the events."""
        self.calls += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None and not self.commits_first:
            raise fault
        if any(event.event_id in self._refused for event in events):
            raise Refused("a row is wrong")
        for event in events:
            self.deliveries.append(event.event_id)
            self.events.setdefault(event.event_id, event)
        if fault is not None:
            raise fault
        return len(events)


class Impatient(threading.Event):
    """An event that nobody waits for, so that a delivery tries again at once; it notes for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        self.pauses.append(timeout)
        return self.is_set()


class Disk:
    """A storage with switches: what is written goes to the disk until something is set."""

    def __init__(self) -> None:
        self.create_fault: OSError | None = None
        self.write_faults: list[OSError | int] = []
        """What the next writes come to: a fault, or so many bytes taken."""
        self.full = False
        self.sync_faults: list[OSError] = []
        self.syncing = threading.Event()
        self.syncing.set()
        self._names: dict[int, str] = {}
        self.created: list[str] = []
        self.synced: list[str] = []
        self.closed: list[str] = []
        self.storage = Storage(create=self._create, write=self._write, sync=self._sync, close=self._close)

    def _create(self, path: Path) -> int:
        if self.create_fault is not None:
            raise self.create_fault
        descriptor = DISK.create(path)
        self._names[descriptor] = path.name
        self.created.append(path.name)
        return descriptor

    def _write(self, descriptor: int, data: bytes) -> int:
        if self.full:
            raise no_space()
        fault = self.write_faults.pop(0) if self.write_faults else len(data)
        if isinstance(fault, OSError):
            raise fault
        return DISK.write(descriptor, data[:fault])

    def _sync(self, descriptor: int) -> None:
        assert self.syncing.wait(WAIT_SECONDS_MAX)
        self.synced.append(self._names[descriptor])
        if self.sync_faults:
            raise self.sync_faults.pop(0)
        DISK.sync(descriptor)

    def _close(self, descriptor: int) -> None:
        self.closed.append(self._names[descriptor])
        DISK.close(descriptor)


@pytest.fixture
def disk() -> Disk:
    """Give a disk without faults."""
    return Disk()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Give the empty folder of a journal."""
    return make_folder(tmp_path)


def make_folder(root: Path, holder: str = "holder", *records: Record) -> Folder:
    """Make a folder, with one segment where there are records."""
    made = Folder(root / holder)
    made.path.mkdir()
    if records:
        write_segment(made, 1, *records)
    return made


def write_segment(folder: Folder, number: int, *records: Record) -> list[int]:
    """Write a segment; returns the offset behind each record."""
    data, ends = b"", []
    for record in records:
        data += frame(encode(record))
        ends.append(len(data))
    folder.segment(number).write_bytes(data)
    return ends


def event_id(number: int) -> str:
    """Make an event's id."""
    return f"019ab1c2-0000-7000-8000-{number:012d}"


def make_attempt(number: int) -> Attempt:
    """Make an attempt."""
    return Attempt(
        event_id=event_id(number),
        started_at=NOW,
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model="model",
        stream=True,
        prompt_estimate=40,
    )


def make_settled(number: int) -> UsageEvent:
    """Make the event of an attempt that went well."""
    return msgspec.structs.replace(
        interrupted(make_attempt(number), 0),
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        prompt_tokens=10,
        completion_tokens=number,
    )


def intent(number: int) -> Intent:
    """Make an intent."""
    return Intent(make_attempt(number))


def progress(number: int, tokens: int) -> Progress:
    """Make a note of progress."""
    return Progress(event_id(number), tokens)


def settle(number: int) -> Settle:
    """Make a settle."""
    return Settle(make_settled(number))


def make_delivery(root: Path, books: Books, abandoned: threading.Event | None = None) -> Delivery:
    """Make the way into a ledger."""
    return Delivery(
        sink=books,
        refusal=Refused,
        quarantine=Quarantine(root),
        abandoned=abandoned or Impatient(),
        chance=lambda: 0.5,
    )


def quarantined(root: Path) -> list[dict[str, Any]]:
    """Return what was put aside."""
    path = root / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def no_space() -> OSError:
    """Make what a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> OSError:
    """Make what a broken disk says."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def until(condition: Callable[[], object]) -> None:
    """Wait for something that other threads do."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that the event loop does."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        # Some of what is waited for happens in other threads.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
