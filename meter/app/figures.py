"""What the ledger says, for the page of metrics: read every few seconds, by the process that shows it."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from meter.metrics import LedgerFigures
from meter.store import figures
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable

REFRESH_SECONDS = 5.0

log = logging.getLogger(__name__)


class Figures:
    """Reads the figures and has them shown."""

    def __init__(self, database: Database, shown: LedgerFigures, now: Callable[[], datetime]) -> None:
        self._database = database
        self._shown = shown
        self._now = now
        self.database_away = False
        """Whether the last look got no answer."""

    async def keep_fresh(self) -> None:
        """Read again and again until cancelled; what was read last stays while the database is away."""
        while True:
            try:
                await asyncio.to_thread(self._read)
                self.database_away = False
            except DatabaseUnavailable as fault:
                log.info("the ledger's figures cannot be read now: %s", fault)
                self.database_away = True
            except Exception:
                log.exception("the ledger's figures could not be read")
            await asyncio.sleep(REFRESH_SECONDS)

    def _read(self) -> None:
        teams = figures.by_team(self._database)
        self._shown.tell(teams, figures.standings(self._database, self._now()))
