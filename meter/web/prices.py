"""Prices over HTTP: in USD per million tokens, as decimal strings, and the unit in every name."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody

from meter.core.access import Asker
from meter.core.errors import InvalidRequest
from meter.core.price_amounts import AmountError, NewPrice, ShownPrice, shown
from meter.core.price_listing import Listing
from meter.core.prices import Price
from meter.web.access import FOR_ADMINS, FOR_VIEWERS
from meter.web.instants import read_instant


class PriceList(msgspec.Struct):
    """Versions of prices, the one that counts first where a model was named."""

    data: list[ShownPrice]
    versions_to_come: int
    """Versions of the same models that begin later and are not among these."""
    models_listed: int
    """Models that are in price lists, shown or not."""


class AddedPrices(msgspec.Struct):
    """Versions as they are in the book now."""

    data: list[ShownPrice]


class PriceToSet(NewPrice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price to set."""

    effective_from: str | None = None  # type: ignore[assignment]  # as it is written; `price` has read it
    """RFC 3339."""

    @property
    def price(self) -> NewPrice:
        """The same, read; raises `InvalidRequest`."""
        values = msgspec.structs.asdict(self)
        start = read_instant(self.effective_from, "effective_from")
        return NewPrice(**values | {"effective_from": start})


@dataclass(frozen=True)
class Prices:
    """What this controller works with."""

    list_all: Callable[[str | None, datetime | None, bool], Listing]
    set: Callable[[str, NewPrice], tuple[Price, ...]]


class PriceController(Controller):
    """Look at prices, and set them."""

    path = "/api/v1/prices"
    tags = ("prices",)

    @get(sync_to_thread=True, opt=FOR_VIEWERS, summary="List prices")
    def list_all(
        self,
        prices: NamedDependency[Prices],
        model: FromQuery[str | None] = None,
        at: FromQuery[str | None] = None,
        every_version: FromQuery[bool] = False,  # noqa: FBT002 (a parameter of the query has a name)
    ) -> PriceList:
        """List your own prices, or with `model` those of a name, or of a pattern such as `anthropic/*`.

        They are those that count now, or at a time (RFC 3339), or every version there is.
        """
        found = prices.list_all(model, read_instant(at, "at"), every_version)
        return PriceList([shown(price) for price in found.prices], found.to_come, found.listed)

    @post(sync_to_thread=True, opt=FOR_ADMINS, summary="Set a price")
    def create(
        self, data: JSONBody[PriceToSet], prices: NamedDependency[Prices], asker: NamedDependency[Asker]
    ) -> AddedPrices:
        """Add a version of your own, in USD per million tokens; nothing is overwritten.

        Without `effective_from` it holds from 5 seconds from now on, or from the beginning where the model
        never had a price. With `max_output_tokens` alone, the prices stay as they are.
        """
        try:
            return AddedPrices([shown(price) for price in prices.set(asker.actor, data.price)])
        except AmountError as fault:
            raise InvalidRequest(str(fault), param=fault.field) from None
