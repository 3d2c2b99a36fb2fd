"""The price book that a process rates by: loaded once, and again when it has changed.

It is also kept in the data directory, so that a server that starts while the database is away knows prices.
"""

import asyncio
import logging
from urllib.parse import urlsplit

import msgspec

from meter.app.unpriced import Unpriced
from meter.core.events import UsageEvent
from meter.core.model_names import catalog_of
from meter.core.prices import Price, PriceBook, rate
from meter.datadir import PRICES_FILE, save
from meter.settings import Settings
from meter.store import prices
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable

REFRESH_SECONDS = 2.0
# A version that is added holds from then on, so that every process knows it before it counts.
NOTICE_SECONDS = 5.0
# How long a start waits for the book, which the first requests need; then the saved one has to do.
FIRST_LOAD_SECONDS_MAX = 5.0

log = logging.getLogger(__name__)


class Rater:
    """Puts costs on events by the newest price book that it has seen."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._path = settings.data_dir / PRICES_FILE
        self._catalogs = catalogs(settings)
        self._latest_id = 0
        self._unpriced = Unpriced()
        self._book = PriceBook(self._saved(), self._catalogs)

    @property
    def book(self) -> PriceBook:
        """The book as it is now; another one takes its place when prices change."""
        return self._book

    def rate(self, event: UsageEvent) -> UsageEvent:
        """Put a cost on an event, or leave it unpriced."""
        rated = rate(event, self._book)
        if rated.cost is None:
            self._unpriced.tell(rated)
        return rated

    def refresh(self) -> None:
        """Load the book anew if it has changed; raises `DatabaseUnavailable`. Takes a moment: in a thread."""
        latest_id = prices.latest_id(self._database)
        if latest_id == self._latest_id:
            return
        found = prices.load(self._database)
        self._book = PriceBook(found, self._catalogs)
        self._latest_id = latest_id
        save(self._path, msgspec.msgpack.encode(found))

    def _saved(self) -> list[Price]:
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=list[Price])
        except FileNotFoundError:
            return []
        except ValueError as fault:
            log.warning("the price book in %s cannot be read: %s", self._path, fault)
            return []


def catalogs(settings: Settings) -> dict[str, str]:
    """Say of each upstream that is a known provider whose price list holds there."""
    found = {entry.name: catalog_of(urlsplit(entry.url).hostname or "") for entry in settings.upstreams}
    return {name: catalog for name, catalog in found.items() if catalog is not None}


async def load_first(rater: Rater) -> None:
    """Load the book for the first requests, unless the database is away or slow."""
    try:
        async with asyncio.timeout(FIRST_LOAD_SECONDS_MAX):
            await asyncio.to_thread(rater.refresh)
    except (DatabaseUnavailable, TimeoutError) as fault:
        log.warning("prices are those of the last run, since the database is away: %s", fault)


async def keep_fresh(rater: Rater) -> None:
    """Look for changed prices again and again, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(rater.refresh)
        except DatabaseUnavailable as fault:
            log.info("prices cannot be looked up now: %s", fault)
        except Exception:
            log.exception("the price book could not be loaded")
        await asyncio.sleep(REFRESH_SECONDS)
