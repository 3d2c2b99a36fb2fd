"""What an examination finds: a line a check, whether it is well, and what to do where it is not."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import takewhile
from typing import Any

import msgspec

CLOCK_SECONDS_WARN = 2.0
CLOCK_SECONDS_FAIL = 30.0
# Parts of the journal's room.
JOURNAL_WARN = 0.5
JOURNAL_FAIL = 0.9
# Under it SQLite lacks RETURNING, and PostgreSQL is not maintained any more.
SQLITE_VERSION_MIN = (3, 35)
POSTGRES_VERSION_WARN = 14
STATUS_OK = 200
STATUS_MULTIPLE = 300
STATUS_REFUSED = (401, 403)
STATUS_SERVER = 500


class State(StrEnum):
    """How a check ended, from well to ill."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One line: what was looked at, how it is, what was seen, and what to do about it."""

    name: str
    state: State
    seen: str
    advice: str = ""


def worst(checks: Sequence[Check]) -> State:
    """Return how bad it is."""
    order = list(State)
    return max((check.state for check in checks), key=order.index, default=State.OK)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return what was found as the JSON document that the command line gives."""
    return {"state": worst(checks), "checks": [msgspec.structs.asdict(check) for check in checks]}


def clock(ahead_seconds: float) -> Check:
    """Judge how far this machine's clock is ahead of the database's."""
    away = abs(ahead_seconds)
    seen = f"{away:.1f} s {'ahead of' if ahead_seconds > 0 else 'behind'} the database's"
    if away < CLOCK_SECONDS_WARN:
        return Check("clock", State.OK, seen)
    state = State.WARN if away < CLOCK_SECONDS_FAIL else State.FAIL
    return Check("clock", state, seen, "let NTP set the clocks of this machine and of the database's")


def disk(free: int, journal_bytes: int, journal_bytes_max: int) -> Check:
    """Judge the room of the data directory's disk against what the journal may come to need."""
    most = _size(journal_bytes_max)
    seen = f"{_size(free)} free; the journal holds {_size(journal_bytes)} and may grow to {most}"
    needed = max(journal_bytes_max - journal_bytes, 0)
    if free >= needed:
        return Check("disk", State.OK, seen)
    advice = "make room, or lower METER_JOURNAL_BYTES_MAX, so that an outage of the database fits"
    return Check("disk", State.WARN if free >= needed // 10 else State.FAIL, seen, advice)


def descriptors(reachable: int, needed: int) -> Check:
    """Judge how many files and connections a process may open."""
    seen = f"{reachable} files and connections may be open; {needed} are needed at most"
    if reachable >= needed:
        return Check("descriptors", State.OK, seen)
    advice = (
        "raise 'ulimit -Hn', or lower METER_CONNECTIONS_MAX and METER_REQUESTS_MAX; it takes fewer meanwhile"
    )
    return Check("descriptors", State.WARN, seen, advice)


def journal(used: int, bytes_max: int, late: int, quarantined: int) -> Check:
    """Judge what waits to be shipped: the bytes of journals, journals with late events, refused records."""
    part = used / bytes_max
    seen = (
        f"{part:.0%} of its room used, {late} journals with late events, {quarantined} records in quarantine"
    )
    if part >= JOURNAL_FAIL:
        return Check("journal", State.FAIL, seen, "bring the database back: past 100 % requests get 503")
    if late:
        return Check(
            "journal", State.WARN, seen, "see why the database does not take them: the log, 'meter verify'"
        )
    if quarantined:
        return Check("journal", State.WARN, seen, "look at journal/quarantine.jsonl: these are in no report")
    if part >= JOURNAL_WARN:
        return Check("journal", State.WARN, seen, "see that the database takes events")
    return Check("journal", State.OK, seen)


def sqlite(version: tuple[int, ...]) -> Check:
    """Judge the SQLite library that Python has."""
    seen = f"SQLite {'.'.join(map(str, version))}"
    if version < SQLITE_VERSION_MIN:
        return Check("database", State.FAIL, seen, "use a Python with SQLite 3.35 or newer")
    return Check("database", State.OK, seen)


def postgres(version: str, *, read_only: bool) -> Check:
    """Judge a PostgreSQL server that answered; its version may be such as `17beta1`."""
    seen = f"PostgreSQL {version}"
    if read_only:
        advice = "point METER_DATABASE_URL to the primary: this server takes no writes"
        return Check("database", State.FAIL, f"{seen}, read-only", advice)
    if int("".join(takewhile(str.isdecimal, version)) or 0) < POSTGRES_VERSION_WARN:
        return Check("database", State.WARN, seen, f"use PostgreSQL {POSTGRES_VERSION_WARN} or newer")
    return Check("database", State.OK, seen)


def migrations(current: str | None, head: str | None, *, known: bool) -> Check:
    """Judge the version of the tables."""
    seen = f"tables at {current or 'none'}, expected {head}"
    if current == head:
        return Check("migrations", State.OK, seen)
    if not known:
        return Check(
            "migrations", State.FAIL, seen, "this meter is older than the database: install the newer one"
        )
    return Check(
        "migrations", State.WARN, seen, "run 'meter db upgrade', or let 'meter serve' do it at its start"
    )


def models_answer(name: str, status: int) -> Check:
    """Judge what an upstream said to a question for its models."""
    seen = f"answers; /models says {status}"
    if STATUS_OK <= status < STATUS_MULTIPLE:
        return Check(name, State.OK, seen)
    if status in STATUS_REFUSED:
        return Check(name, State.FAIL, seen, "check this upstream's API key")
    if status >= STATUS_SERVER:
        return Check(name, State.WARN, seen, "the upstream has trouble of its own; look again later")
    return Check(name, State.WARN, seen, "check the upstream's URL, unless it has no list of models")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
