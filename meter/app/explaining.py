"""Explaining an event: its account, the names, and the price book, put together."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from meter.core.errors import NotFound
from meter.core.explain import Explanation, Knowledge, explain
from meter.core.prices import PriceBook
from meter.core.retention import label
from meter.store import corrections, prices
from meter.store.database import Database
from meter.store.retention import begins


def explain_event(database: Database, catalogs: Mapping[str, str], event_id: str) -> Explanation:
    """Explain what an event costs; the id of a correction means the event that it corrects.

    Raises `ValueError` for what is no id, and `NotFound` for one that the ledger does not have.
    """
    try:
        exact = str(UUID(event_id))
    except ValueError:
        raise ValueError(
            f"not an event's id: {event_id!r} (every answer has one in its header x-meter-request-id)"
        ) from None
    account = corrections.find(database, exact)
    if account is None:
        raise NotFound(f"the ledger has no event {exact}; {_where(begins(database))}", param="event_id")
    versions = prices.load(database)
    known = Knowledge({price.id: price for price in versions}, PriceBook(versions, catalogs), catalogs)
    return explain(account, *corrections.names(database, account.event), known)


def _where(horizon: datetime | None) -> str:
    """Say where an event may be that the ledger does not have."""
    soon = "events get there within seconds of their end"
    if horizon is None:
        return soon
    return f"{soon}, and older ones than {label(horizon)} have left it by 'meter retention'"
