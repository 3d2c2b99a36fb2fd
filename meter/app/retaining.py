"""Retention, as a command and once a day in a server: the horizon moves, and what is before it leaves."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from meter.app.actions import clock, signed
from meter.core.retention import Plan, wanted_horizon
from meter.store import retention
from meter.store.clock import database_now
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable

DAY_SECONDS = 24 * 3600.0
RETRY_SECONDS = 600.0
# Whom the audit log names for a server.
ACTOR = "retention"

log = logging.getLogger(__name__)


def plan(database: Database, months: int) -> Plan:
    """Say what retention would do; 0 months keep everything."""
    wanted = wanted_horizon(database_now(database, clock.now()), months) if months else None
    return retention.plan(database, wanted)


def apply(database: Database, months: int, actor: str, now: datetime) -> int:
    """Take what is older than so many months out of the ledger; returns how many events those were."""
    retention.advance(database, wanted_horizon(now, months), signed(actor))
    return retention.remove(database)


async def keep_retained(database: Database, months: int, now: Callable[[], datetime]) -> None:
    """Do it once a day, until cancelled; 0 months keep everything."""
    while months:
        pause = DAY_SECONDS
        try:
            removed = await asyncio.to_thread(apply, database, months, ACTOR, now())
            if removed:
                log.info("retention: %d events have left the ledger", removed)
        except DatabaseUnavailable as fault:
            log.info("retention goes on later: %s", fault)
            pause = RETRY_SECONDS
        except Exception:
            log.exception("events could not be taken out of the ledger")
        await asyncio.sleep(pause)
