"""What a list of prices would change in the book: new, changed and gone, and the versions that say so.

Versions of one model in one tier of one list make a history. What a list says and the book says too is left
alone, also where the two say it with other dates, so that taking a list over twice adds nothing the second
time. A price whose list gives no date (`UNDATED`) holds from now on: what has been rated stays as it was. The
first price that a model ever had holds from the beginning instead, so that what was unpriced can be rated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from meter.core.prices import Price

# What a list that gives no date has for one; before everything else.
UNDATED = datetime(1, 1, 1, tzinfo=UTC)


class Subject(NamedTuple):
    """What a history of prices is about."""

    catalog: str
    upstream: str
    model: str
    service_tier: str


Histories = Mapping[Subject, Sequence[Price]]


class Change(NamedTuple):
    """What is to be added for one subject, and what counted until now."""

    subject: Subject
    before: Price | None
    """`None`: it had no price."""
    added: tuple[Price, ...]


class Difference(NamedTuple):
    """What taking a list over comes to."""

    new: tuple[Change, ...]
    changed: tuple[Change, ...]
    gone: tuple[Price, ...]
    """What counts now and the list no longer has; it goes on counting."""
    unchanged: int

    @property
    def added(self) -> tuple[Price, ...]:
        """All versions that are to be added, in the order in which they are."""
        return tuple(price for change in (*self.new, *self.changed) for price in change.added)


def subject_of(price: Price) -> Subject:
    """Say what a version is about."""
    return Subject(price.catalog, price.upstream, price.model, price.service_tier)


def histories(prices: Iterable[Price]) -> dict[Subject, list[Price]]:
    """Sort versions by what they are about, in the order in which they were added."""
    found: dict[Subject, list[Price]] = {}
    for price in prices:
        found.setdefault(subject_of(price), []).append(price)
    return found


def in_force(history: Iterable[Price], when: datetime) -> tuple[Price, ...]:
    """Return what of one history counts on the day of an instant: one version, behind those of some hours."""
    latest_first = [price for _, price in sorted(enumerate(history), key=_by_date, reverse=True)]
    found: list[Price] = []
    for price in latest_first:
        if price.effective_from > when or price.hours in [known.hours for known in found]:
            continue
        found.append(price)
        if price.hours is None:
            break
    return tuple(found)


def difference(
    book: Histories,
    listed: Histories,
    *,
    now: datetime,
    takes_effect_at: datetime,
    first_holds_from: Callable[[Subject], datetime],
    complete: Callable[[Price], bool] = lambda _: False,
) -> Difference:
    """Compare a list with the book; `complete` says of which prices the list would have to speak.

    `first_holds_from` is asked from when on the first price of a subject holds, where its list gives no date.
    """
    new: list[Change] = []
    changed: list[Change] = []
    for subject, versions in listed.items():
        known = book.get(subject, ())
        if not known:
            start = first_holds_from(subject)
            new.append(Change(subject, None, tuple(_dated(version, start) for version in versions)))
        elif added := _added(known, versions, takes_effect_at):
            before = _whole_day(known, added[0].effective_from)
            changed.append(Change(subject, before[0] if before else None, added))
    gone = [
        price
        for subject, known in book.items()
        if subject not in listed
        for price in _whole_day(known, now)
        if complete(price)
    ]
    unchanged = len(listed) - len(new) - len(changed)
    return Difference(tuple(new), tuple(changed), tuple(gone), unchanged)


def same(one: Price, other: Price) -> bool:
    """Say whether two versions say the same, dates and origins aside."""
    return _content(one) == _content(other)


def _added(known: Sequence[Price], listed: Sequence[Price], takes_effect_at: datetime) -> tuple[Price, ...]:
    added: list[Price] = []
    dates = sorted({version.effective_from for version in listed} - {UNDATED})
    for date in dates:
        if not _agree((*known, *added), listed, date):
            added += [_from(version, date) for version in reversed(in_force(listed, date))]
    if not _agree((*known, *added), listed, takes_effect_at):
        counting = reversed(in_force(listed, takes_effect_at))
        added += [_from(version, takes_effect_at) for version in counting]
    return tuple(added)


def _agree(known: Sequence[Price], listed: Sequence[Price], when: datetime) -> bool:
    wanted = in_force(listed, when)
    found = in_force(known, when)
    return not wanted or [_content(price) for price in found] == [_content(price) for price in wanted]


def _whole_day(history: Sequence[Price], when: datetime) -> list[Price]:
    return [price for price in in_force(history, when) if price.hours is None]


def _content(price: Price) -> tuple[object, ...]:
    return price.hours, price.rates, price.long_context, price.max_output_tokens


def _by_date(entry: tuple[int, Price]) -> tuple[datetime, int]:
    return entry[1].effective_from, entry[0]


def _dated(version: Price, start: datetime) -> Price:
    return version if version.effective_from > UNDATED else _from(version, start)


def _from(version: Price, start: datetime) -> Price:
    return msgspec.structs.replace(version, effective_from=start)
