"""What a list would change is told from what the book says already, whatever the dates."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from meter.core.price_changes import UNDATED, Difference, difference, histories, in_force
from meter.core.prices import BEGINNING, Hours, Price, PriceBook, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=5)
SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
JANUARY = datetime(2027, 1, 1, tzinfo=UTC)
NIGHT = Hours(start_minute=0, end_minute=240)


def make(prompt: int, start: datetime = BEGINNING, model: str = "m", **fields: object) -> Price:
    """Make a version."""
    values = {
        "id": 0,
        "catalog": "list",
        "model": model,
        "effective_from": start,
        "rates": Rates(prompt=prompt),
        "source": "package 1",
        "created_at": NOW,
    }
    return Price(**values | fields)  # type: ignore[arg-type]


def undated(listed: list[Price]) -> list[Price]:
    """Turn what holds from the beginning into what has no date."""
    return [
        msgspec.structs.replace(price, effective_from=UNDATED) if price.effective_from == BEGINNING else price
        for price in listed
    ]


def compare(book: list[Price], listed: list[Price], *, first: datetime = BEGINNING) -> Difference:
    """Compare a complete list with the book."""
    return difference(
        histories(book),
        histories(undated(listed)),
        now=NOW,
        takes_effect_at=SOON,
        first_holds_from=lambda _: first,
        complete=lambda price: price.source.startswith("package "),
    )


def added(found: Difference) -> list[tuple[int | None, datetime, Hours | None]]:
    """Show what is to be added."""
    return [(price.rates.prompt, price.effective_from, price.hours) for price in found.added]


BOTH = [make(3), make(2, OCTOBER)]

TABLE = [
    ("the same", [make(3)], [make(3)], []),
    ("the same with dates", BOTH, BOTH, []),
    ("the same from another date on", [make(3), make(2, SOON - timedelta(days=9))], [make(2)], []),
    ("another price without a date", [make(3)], [make(2)], [(2, SOON, None)]),
    ("a price with a date", [make(3)], BOTH, [(2, OCTOBER, None)]),
    ("a price to come", [make(3)], [make(3), make(2, JANUARY)], [(2, JANUARY, None)]),
    ("a price to come that is known", [make(3), make(2, JANUARY)], [make(3), make(2, JANUARY)], []),
    ("history that is told anew", BOTH, [make(4), make(2, OCTOBER)], []),
    ("a date for what was noticed", [make(3), make(2, NOW)], BOTH, [(2, OCTOBER, None)]),
    (
        "a date that a later version would hide",
        [make(3), make(2, NOW)],
        [make(3), make(5, OCTOBER)],
        [(5, OCTOBER, None), (5, SOON, None)],
    ),
    ("hours", [make(3)], [make(3), make(6, hours=NIGHT)], [(3, SOON, None), (6, SOON, NIGHT)]),
    ("the same hours", [make(3), make(6, hours=NIGHT)], [make(3), make(6, hours=NIGHT)], []),
    (
        "another price below the same hours",
        [make(3), make(6, hours=NIGHT)],
        [make(2), make(6, hours=NIGHT)],
        [(2, SOON, None), (6, SOON, NIGHT)],
    ),
    ("the longest answer", [make(3)], [make(3, max_output_tokens=9)], [(3, SOON, None)]),
    ("another note", [make(3)], [make(3, note="n", source="package 2")], []),
]


@pytest.mark.parametrize(
    ("book", "listed", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_changes(
    book: list[Price], listed: list[Price], expected: list[tuple[int, datetime, Hours | None]]
) -> None:
    """A price without a date holds from now on, one with a date from then on; what is known is left alone."""
    found = compare(book, listed)

    assert added(found) == expected
    assert found.unchanged == (0 if expected else 1)


@pytest.mark.parametrize(("book", "listed"), [row[1:3] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_second_time(book: list[Price], listed: list[Price]) -> None:
    """Taking the same list over again adds nothing, and the book then says what the list says."""
    after = [*book, *compare(book, listed).added]

    later = difference(
        histories(after),
        histories(undated(listed)),
        now=SOON,
        takes_effect_at=SOON,
        first_holds_from=lambda _: BEGINNING,
    )

    assert later.added == ()
    for hour in (2, 12):
        when = JANUARY + timedelta(hours=hour)
        assert _rate(after, when) == _rate(listed, when)


def _rate(versions: list[Price], when: datetime) -> int | None:
    found = PriceBook(versions, {"upstream": "list"}).find("upstream", "m", None, None, when)
    assert found is not None
    return found.price.rates.prompt


def test_a_date_is_a_date() -> None:
    """What a list dates to the beginning holds from there, also where a later price goes on counting."""
    dated = difference(
        histories([make(3), make(2, OCTOBER)]),
        histories([make(4, BEGINNING)]),
        now=NOW,
        takes_effect_at=SOON,
        first_holds_from=lambda _: SOON,
    )

    assert added(dated) == [(4, BEGINNING, None), (4, SOON, None)]


def test_new_and_gone() -> None:
    """A subject without a history is new from where its first price holds; what the list lacks is gone."""
    found = compare(
        [make(3, model="old"), make(1, model="own", source="set")],
        [make(2), make(4, OCTOBER)],
        first=SOON,
    )

    assert added(found) == [(2, SOON, None), (4, OCTOBER, None)]
    assert [change.subject.model for change in found.new] == ["m"]
    assert [price.model for price in found.gone] == ["old"]
    assert found.changed == ()


def test_what_counted_is_named() -> None:
    """A change says what it takes the place of: the price of the whole day."""
    (change,) = compare([make(3), make(6, hours=NIGHT)], [make(2)]).changed

    assert change.before == make(3)


def test_in_force() -> None:
    """Of one history counts the latest version, behind those of hours that came with it or later."""
    history = [
        make(1),
        make(2, OCTOBER),
        make(9, hours=NIGHT),
        make(8, OCTOBER, hours=NIGHT),
        make(7, JANUARY),
    ]

    assert [price.rates.prompt for price in in_force(history, SEPTEMBER)] == [9, 1]
    assert [price.rates.prompt for price in in_force(history, NOW)] == [8, 2]
    assert [price.rates.prompt for price in in_force(history, JANUARY)] == [7]


def test_nothing_is_in_force_before_the_first() -> None:
    """Before its first version a history has nothing."""
    assert in_force([make(1, OCTOBER)], SEPTEMBER) == ()
