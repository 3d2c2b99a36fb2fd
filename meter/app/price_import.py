"""Taking prices over: from the installed package, from a CSV file, or from LiteLLM's JSON."""

import fnmatch
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from meter.app.actions import signed
from meter.app.pricing import first_instant
from meter.app.rating import NOTICE_SECONDS
from meter.app.seeding import PACKAGE, ReadPackage, read_package
from meter.core.audit import Signature
from meter.core.model_names import OWN
from meter.core.price_changes import UNDATED, Difference, Subject, difference, histories
from meter.core.price_csv import FileFaults, read_csv
from meter.core.price_litellm import read_litellm
from meter.core.prices import BEGINNING, Price, PriceBook
from meter.store import prices
from meter.store.database import Database


class Source(NamedTuple):
    """What is to be taken over."""

    name: str
    versions: list[Price]
    complete: bool
    """Whether it lists all there is, so that what it lacks is gone."""
    skipped: int = 0
    """Entries of a file that are not priced by the token."""


class Selection(NamedTuple):
    """What of a file to take over, and as what."""

    model: str = "*"
    """A pattern of names."""
    strip_prefix: str = ""
    """What to leave off names; names without it are left out."""
    upstream: str = ""
    """The one upstream that the prices are for."""


def read_installed(now: datetime, read: ReadPackage = read_package) -> Source:
    """Read what the installed package lists."""
    versions = [_undated(version) for version in read(now)]
    return Source(versions[0].source if versions else PACKAGE, versions, complete=True)


def read_file(path: Path, selection: Selection, now: datetime) -> Source:
    """Read a file, LiteLLM's JSON or our CSV; raises `FileFaults`."""
    try:
        text = path.read_bytes().decode()
    except OSError as fault:
        raise FileFaults([f"{path} cannot be read: {fault.strerror}"]) from None
    except UnicodeDecodeError:
        raise FileFaults([f"{path} is not UTF-8; save it as such"]) from None
    skipped = 0
    if path.suffix.lower() == ".json":
        versions, skipped = read_litellm(text, source=path.name, now=now)
    else:
        versions = read_csv(text, source=path.name, now=now)
    return Source(path.name, _selected(versions, selection), complete=False, skipped=skipped)


def compare(database: Database, catalogs: Mapping[str, str], source: Source, now: datetime) -> Difference:
    """Say what taking a source over would change."""
    book = prices.load(database)
    index = PriceBook(book, catalogs)
    known = {(price.catalog, price.model) for price in book}
    soon = now + timedelta(seconds=NOTICE_SECONDS)

    def first_holds_from(subject: Subject) -> datetime:
        if subject.catalog == OWN:
            return first_instant(index, catalogs, subject.upstream, subject.model, now)
        return soon if (subject.catalog, subject.model) in known else BEGINNING

    return difference(
        histories(book),
        histories(source.versions),
        now=now,
        takes_effect_at=soon,
        first_holds_from=first_holds_from,
        complete=lambda price: source.complete and price.catalog != OWN,
    )


def take_over(database: Database, catalogs: Mapping[str, str], actor: str, source: Source) -> list[Price]:
    """Add what differs, and return it as it is in the book.

    What differs is looked at again: since it was shown, time has passed, and others may have set prices.
    """
    by = signed(actor)
    found = compare(database, catalogs, source, by.at)
    return prices.add(database, [_signed(version, by) for version in found.added], by)


def _signed(version: Price, by: Signature) -> Price:
    return msgspec.structs.replace(version, created_at=by.at, created_by=by.actor)


def _undated(version: Price) -> Price:
    dated = version.effective_from > BEGINNING
    return version if dated else msgspec.structs.replace(version, effective_from=UNDATED)


def _selected(versions: list[Price], selection: Selection) -> list[Price]:
    pattern, prefix, upstream = selection
    return [
        msgspec.structs.replace(
            version, model=version.model.removeprefix(prefix), upstream=upstream or version.upstream
        )
        for version in versions
        if fnmatch.fnmatchcase(version.model, pattern) and version.model.startswith(prefix)
    ]
