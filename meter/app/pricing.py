"""What the command line and the admin API both do to the price book."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from meter.app.actions import signed
from meter.app.rating import NOTICE_SECONDS
from meter.core.price_amounts import AmountError, NewPrice, check_names, price_of
from meter.core.price_changes import in_force
from meter.core.price_listing import Asked, Listing, listing
from meter.core.prices import BEGINNING, Price, PriceBook
from meter.store import prices
from meter.store.database import Database

SET = "set"


def set_price(
    database: Database, catalogs: Mapping[str, str], actor: str, asked: NewPrice
) -> tuple[Price, ...]:
    """Add a version of the operator's own, and return it as it is in the book.

    It is more than one where the prices of a list are kept that has some for hours of the day.
    """
    by = signed(actor)
    now = by.at
    book = PriceBook(prices.load(database), catalogs)
    start = asked.effective_from or first_instant(book, catalogs, asked.upstream, asked.model, now)
    if asked.has_amounts or asked.max_output_tokens is None:
        made: tuple[Price, ...] = (price_of(asked, effective_from=start, source=SET, created_at=now),)
    else:
        made = _with_another_limit(book, asked, now, start)
    return tuple(
        prices.add(database, [msgspec.structs.replace(each, created_by=by.actor) for each in made], by)
    )


def list_prices(database: Database, catalogs: Mapping[str, str], asked: Asked) -> Listing:
    """Choose versions to show."""
    return listing(prices.load(database), asked, catalogs)


def first_instant(
    book: PriceBook, catalogs: Mapping[str, str], upstream: str, model: str, now: datetime
) -> datetime:
    """Say from when on a version holds that gives no date.

    A model that never had a price has it from the beginning, so that what was unpriced can be rated; for any
    other it begins when every process knows it.
    """
    upstreams = [upstream] if upstream else ["", *catalogs]
    known = any(book.ever_priced(each, model) for each in upstreams)
    return now + timedelta(seconds=NOTICE_SECONDS) if known else BEGINNING


def _with_another_limit(
    book: PriceBook, asked: NewPrice, now: datetime, start: datetime
) -> tuple[Price, ...]:
    check_names(asked)
    found = book.find(asked.upstream, asked.model, None, asked.service_tier, now)
    if found is None:
        raise AmountError(
            "prompt_usd_per_mtok", f"is missing: {asked.model!r} has no price that could be kept"
        )
    return tuple(
        msgspec.structs.replace(
            version,
            catalog="",
            upstream=asked.upstream,
            model=asked.model,
            effective_from=start,
            max_output_tokens=asked.max_output_tokens,
            source=SET,
            created_at=now,
            note=asked.note or f"prices of {version.source}",
        )
        for version in reversed(in_force(reversed(book.history(found.price)), now))
    )
