"""Where the first prices come from: a package, which a process of its own reads."""

import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime

import msgspec

from meter.core.prices import Price
from meter.settings import Settings
from meter.store import prices
from meter.store.database import Database

PACKAGE = "genai-prices"
# It takes a quarter of a second; a machine that is busy with other things takes longer.
READ_SECONDS_MAX = 60

log = logging.getLogger(__name__)

ReadPackage = Callable[[datetime], list[Price]]


class PackageUnreadable(Exception):
    """The package of prices is missing or broken."""


def read_package(now: datetime) -> list[Price]:
    """Read all versions that the installed package lists, as they would be added now."""
    command = (sys.executable, "-m", "meter.pricelist")
    try:
        done = subprocess.run(command, capture_output=True, timeout=READ_SECONDS_MAX, check=False)  # noqa: S603 (the command is ours)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise PackageUnreadable(str(fault)) from fault
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise PackageUnreadable(reason[-1] if reason else f"it ended with status {done.returncode}")
    versions = msgspec.msgpack.decode(done.stdout, type=list[Price])
    return [msgspec.structs.replace(version, created_at=now) for version in versions]


def seed(settings: Settings, database: Database, now: datetime, read: ReadPackage = read_package) -> None:
    """Put the package's prices into a book that has none of them; raises `DatabaseUnavailable` only.

    Without them requests are metered and unpriced, which is no reason not to serve.
    """
    if settings.prices_seed != PACKAGE or prices.knows_package(database, PACKAGE):
        return
    try:
        listed = read(now)
    except (PackageUnreadable, ValueError) as fault:
        log.warning("prices could not be taken over from %s, so that models are unpriced: %s", PACKAGE, fault)
        return
    added = prices.add_first(database, listed, PACKAGE)
    if added:
        log.info("%d prices were taken over from %s", added, listed[0].source)
