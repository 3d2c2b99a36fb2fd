"""Which versions of the book to show: the operator's own, those of a name, or those of a pattern.

A name without `*` and `?` is looked for as it is when a request is rated, so that what is shown first is what
counts. A pattern is compared with names as lists have them, and with `list/name`.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from meter.core.model_names import OWN, Place, places
from meter.core.price_changes import Histories, Subject, histories, in_force
from meter.core.prices import Price


class Asked(NamedTuple):
    """What to show."""

    model: str | None
    """A name or a pattern; `None` is the operator's own prices."""
    at: datetime
    every_version: bool = False
    """Whether to show also what counted before, and what will count later."""


class Listing(NamedTuple):
    """What is shown, and how much is not."""

    prices: tuple[Price, ...]
    to_come: int
    """Versions of the same models that begin later and are not among them."""
    listed: int
    """Models that are in price lists, shown or not."""


def listing(prices: Iterable[Price], asked: Asked, catalogs: Mapping[str, str]) -> Listing:
    """Choose what to show; `catalogs` are the price lists of upstreams that are a provider of their own."""
    known = histories(prices)
    found: list[Price] = []
    to_come = 0
    for subject in _subjects(known, asked.model, catalogs):
        history = sorted(known[subject], key=lambda price: (price.effective_from, price.id))
        if asked.every_version:
            found += history
        else:
            found += reversed(in_force(history, asked.at))
            to_come += sum(price.effective_from > asked.at for price in history)
    listed = {(subject.catalog, subject.model) for subject in known if subject.catalog != OWN}
    return Listing(tuple(found), to_come, len(listed))


def _subjects(known: Histories, model: str | None, catalogs: Mapping[str, str]) -> list[Subject]:
    if model is None:
        return sorted((each for each in known if each.catalog == OWN), key=_by_name)
    if "*" in model or "?" in model:
        return sorted((each for each in known if _matches(each, model)), key=_by_name)
    ranks: dict[Place, int] = {}
    for place in _places(known, model, catalogs):
        ranks.setdefault(place, len(ranks))
    found = [each for each in known if _place(each) in ranks]
    # A price for one upstream counts before the same for any.
    return sorted(found, key=lambda each: (not each.upstream, ranks[_place(each)], each.service_tier))


def _places(known: Histories, model: str, catalogs: Mapping[str, str]) -> Iterable[Place]:
    limited = {each.upstream for each in known if each.upstream}
    for upstream in sorted({*catalogs, *limited}):
        yield from places(model, upstream, catalogs.get(upstream))
    yield from places(model, "", None)


def _place(subject: Subject) -> Place:
    return Place(subject.catalog, subject.upstream, subject.model)


def _matches(subject: Subject, pattern: str) -> bool:
    names = (subject.model, f"{subject.catalog}/{subject.model}")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _by_name(subject: Subject) -> tuple[str, str, str, str]:
    return subject.model, subject.catalog, subject.upstream, subject.service_tier
