"""`meter doctor`'s examination: every part that a server needs is looked at, and nothing is changed.

Each look stands for itself: what cannot be seen because something else is missing is left out.
"""

import asyncio
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from meter.app import descriptors
from meter.app.actions import clock
from meter.app.upstreams import SAMPLE
from meter.core import doctor
from meter.core.doctor import Check, State
from meter.datadir import ADMIN_TOKEN_FILE, JOURNAL_FOLDER, PEPPER_FILE
from meter.journal.folder import Folder
from meter.journal.quarantine import Quarantine
from meter.journal.recovery import folders, unshipped
from meter.rates import CountersAwayError
from meter.rates.shared import redis_version
from meter.settings import Settings, UpstreamSettings
from meter.store.clock import database_now
from meter.store.database import Database
from meter.store.examination import reach
from meter.store.failures import DatabaseUnavailable
from meter.store.installation import WrongPepper, examine_pepper

LATE_SECONDS = 60.0
UPSTREAM_SECONDS_MAX = 10.0
_CLOSED_TO_OTHERS = 0o077

Revisions = Callable[[Database], tuple[str | None, str | None, bool]]
"""Returns the tables' revision, the one that is expected, and whether this meter knows the first."""


def examine(settings: Settings, revisions: Revisions) -> Iterator[Check]:
    """Look at everything that a configuration names, one after the other."""
    yield _configuration(settings)
    yield doctor.descriptors(descriptors.reachable(), descriptors.needed(settings))
    yield from _readable("data directory", lambda: [_data_directory(settings.data_dir)])
    if settings.data_dir.is_dir():
        yield from _readable("journal", lambda: _journals(settings))
    yield from _readable("database", lambda: _database(settings, revisions))
    if settings.redis_url is not None:
        yield asyncio.run(_redis(settings.redis_url.reveal()))
    yield from asyncio.run(_upstreams(settings.upstreams))


def _readable(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Look at files, which another user may own."""
    try:
        yield from look()
    except OSError as fault:
        yield Check(name, State.FAIL, str(fault), "run this as the user that runs 'meter serve'")


def _configuration(settings: Settings) -> Check:
    if not settings.upstreams:
        advice = "set ROUTERHUB_API_KEY, METER_UPSTREAM_URL or [[upstreams]] in meter.toml"
        return Check("configuration", State.FAIL, "no upstream is configured", advice)
    names = ", ".join(entry.name for entry in settings.upstreams)
    return Check("configuration", State.OK, f"can be used; upstreams: {names}")


def _data_directory(path: Path) -> Check:
    if not path.is_dir():
        advice = "'meter serve' makes it; or name another in METER_DATA_DIR"
        return Check("data directory", State.WARN, f"{path} is not there yet", advice)
    open_ones = [
        entry.name
        for entry in (path, path / ADMIN_TOKEN_FILE, path / PEPPER_FILE)
        if entry.exists() and stat.S_IMODE(entry.stat().st_mode) & _CLOSED_TO_OTHERS
    ]
    if open_ones:
        advice = f"chmod go= {path} and the secrets in it"
        return Check("data directory", State.WARN, f"others may read {', '.join(open_ones)}", advice)
    return Check("data directory", State.OK, str(path))


def _journals(settings: Settings) -> Iterator[Check]:
    root = settings.data_dir / JOURNAL_FOLDER
    found = list(folders(root)) if root.is_dir() else []
    used = max(map(_size_bytes, found), default=0)
    yield doctor.disk(shutil.disk_usage(settings.data_dir).free, used, settings.journal_bytes_max)
    late = unshipped(root, older_than_seconds=LATE_SECONDS) if found else []
    quarantined = len(Quarantine(root)) if root.is_dir() else 0
    yield doctor.journal(used, settings.journal_bytes_max, len(late), quarantined)


def _size_bytes(folder: Folder) -> int:
    try:
        return folder.size_bytes()
    except FileNotFoundError:
        # A server at work has just deleted what was shipped, and holds less than before.
        return folder.size_bytes()


def _database(settings: Settings, revisions: Revisions) -> Iterator[Check]:
    path = settings.sqlite_path
    if path is not None and not path.exists():
        yield Check("database", State.WARN, f"{path} is not there yet", "'meter serve' makes it")
        return
    database = Database(settings.database_url.reveal())
    try:
        yield reach(database)
        yield doctor.clock((clock.now() - database_now(database, clock.now())).total_seconds())
        current, head, known = revisions(database)
        yield doctor.migrations(current, head, known=known)
        if current is not None:
            yield _pepper(settings, database)
    except DatabaseUnavailable as fault:
        advice = "start the database, or correct METER_DATABASE_URL; known keys go on meanwhile"
        yield Check("database", State.FAIL, str(fault), advice)
    finally:
        database.dispose()


def _pepper(settings: Settings, database: Database) -> Check:
    file = settings.data_dir / PEPPER_FILE
    try:
        pepper = settings.pepper.reveal() if settings.pepper else file.read_text(encoding="ascii").strip()
        recorded = examine_pepper(database, pepper.encode())
    except FileNotFoundError:
        return Check(
            "pepper", State.FAIL, f"{file} is missing", "put it back from a backup: no key works without"
        )
    except WrongPepper as fault:
        return Check("pepper", State.FAIL, "not the one that keys were made with", str(fault))
    return Check("pepper", State.OK, "the one that keys are made with" if recorded else "not used yet")


async def _redis(url: str) -> Check:
    try:
        return Check("redis", State.OK, f"Redis {await redis_version(url)}")
    except CountersAwayError as fault:
        advice = "start it, or correct METER_REDIS_URL; until then every process counts rates for itself"
        return Check("redis", State.WARN, str(fault), advice)


async def _upstreams(upstreams: tuple[UpstreamSettings, ...]) -> list[Check]:
    async with httpx.AsyncClient(trust_env=False, timeout=UPSTREAM_SECONDS_MAX) as client:
        return list(await asyncio.gather(*(_upstream(client, entry) for entry in upstreams)))


async def _upstream(client: httpx.AsyncClient, entry: UpstreamSettings) -> Check:
    name = f"upstream {entry.name}"
    if entry is SAMPLE:
        return Check(name, State.OK, "is built in, and makes its answers up")
    parts = urlsplit(entry.url)
    try:
        await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or parts.scheme)
    except socket.gaierror as fault:
        seen = f"the name {parts.hostname} is not found: {fault.strerror}"
        return Check(name, State.FAIL, seen, "check the upstream's URL and this machine's DNS")
    headers = {} if entry.api_key is None else {"authorization": f"Bearer {entry.api_key.reveal()}"}
    try:
        async with client.stream("GET", f"{entry.url}/models", headers=headers) as answer:
            return doctor.models_answer(name, answer.status_code)
    except httpx.TransportError as fault:
        seen = f"no answer: {type(fault).__name__}: {fault}"
        is_tls = "SSL" in seen
        advice = (
            "check its certificate, and this machine's clock" if is_tls else "check the URL and firewalls"
        )
        return Check(name, State.FAIL, seen, advice)
