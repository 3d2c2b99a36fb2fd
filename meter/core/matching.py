"""Which names of a bill and of the ledger mean the same model.

One side may say `openai/gpt-4.1-2025-04-14` where the other says `gpt-4.1`. Two names mean the same model if
they are equal, or become equal when a prefix, the date of a snapshot, or both are left off one of them. Two
different dates never match, and two different prefixes only if they name the same vendor. Equal names come
before all others; then what differs by less.

What cannot be told apart is compared together: a bill's `gpt-4o` stands for both snapshots that the ledger
has, if the bill has no lines of their own for them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meter.core.model_names import vendor_of, without_date


class Names(NamedTuple):
    """Names that mean the same, on either side; one side may have none."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]

    @property
    def ambiguous(self) -> bool:
        """Say whether several names of the bill are compared as one, for want of names of ours."""
        return len(self.theirs) > 1


class _Parts(NamedTuple):
    prefix: str
    base: str
    date: str


def match(theirs: Iterable[str], ours: Iterable[str]) -> list[Names]:
    """Put each name of both sides into one group, in the order of their names."""
    billed, known = dict.fromkeys(theirs), dict.fromkeys(ours)
    group_of: dict[tuple[bool, str], int] = {}
    members: dict[int, list[tuple[bool, str]]] = {}
    for number, name in enumerate([*((True, name) for name in billed), *((False, name) for name in known)]):
        group_of[name], members[number] = number, [name]
    links = [(name, other) for name, others in _counterparts(billed, known).items() for other in others]
    back = [(other, name) for name, others in _counterparts(known, billed).items() for other in others]
    for their_name, our_name in links + back:
        kept, joined = group_of[True, their_name], group_of[False, our_name]
        if kept != joined:
            for each in members[joined]:
                group_of[each] = kept
            members[kept] += members.pop(joined)
    return sorted(_names(group) for group in members.values())


def _names(group: Iterable[tuple[bool, str]]) -> Names:
    found = sorted(group)
    return Names(
        tuple(name for theirs, name in found if theirs), tuple(name for theirs, name in found if not theirs)
    )


def _counterparts(names: Mapping[str, None], others: Iterable[str]) -> Mapping[str, list[str]]:
    """Say of each name which of the others come nearest to it."""
    by_base: dict[str, list[str]] = {}
    for other in others:
        by_base.setdefault(_parts(other).base, []).append(other)
    return {name: _nearest(name, by_base.get(_parts(name).base, []), names) for name in names}


def _nearest(name: str, candidates: Iterable[str], names: Mapping[str, None]) -> list[str]:
    """Take what is equal, else what differs by least; what has an equal of its own comes last."""
    found: dict[tuple[bool, int], list[str]] = {}
    for other in candidates:
        distance = -1 if other == name else _distance(_parts(name), _parts(other))
        if distance is not None:
            found.setdefault((other != name and other in names, distance), []).append(other)
    return found[min(found)] if found else []


def _distance(one: _Parts, other: _Parts) -> int | None:
    """Count what has to be left off, a date twice as heavy as a prefix; `None` if that does not do."""
    distance = 0
    for mine, yours, weight in ((one.prefix, other.prefix, 1), (one.date, other.date, 2)):
        if mine and yours and mine != yours:
            return None
        distance += weight * (mine != yours)
    return distance


def _parts(name: str) -> _Parts:
    prefix, slash, rest = name.partition("/")
    model = rest if slash else name
    base = without_date(model)
    return _Parts((vendor_of(prefix) or prefix) if slash else "", base, _digits(model[len(base) :]))


def _digits(date: str) -> str:
    return date.replace("-", "")
