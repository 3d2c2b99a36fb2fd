"""Any stretch of time is covered exactly by signed months, days and quarter hours."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.period import BUCKET
from meter.core.spans import GRAINS, Span, floor, spans

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
quarters = st.integers(0, 70 * 96).map(lambda number: FIRST + number * BUCKET)


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def covered(found: list[Span]) -> Counter[datetime]:
    """Count how often each quarter hour is added, less how often it is taken away."""
    counts: Counter[datetime] = Counter()
    for span in found:
        for number in range((span.end - span.start) // BUCKET):
            counts[span.start + number * BUCKET] += span.sign
    return Counter({quarter: count for quarter, count in counts.items() if count})


@given(quarters, quarters)
def test_every_quarter_hour_counts_once(one: datetime, other: datetime) -> None:
    """Within the stretch each quarter hour counts once, and outside of it none."""
    start, end = sorted((one, other))

    found = spans(start, end)

    expected = Counter({start + number * BUCKET: 1 for number in range((end - start) // BUCKET)})
    assert covered(found) == expected


@given(quarters, quarters)
def test_spans_are_of_whole_grains(one: datetime, other: datetime) -> None:
    """A span begins and ends where its grain does, and there are few of them."""
    found = spans(*sorted((one, other)))

    assert all(floor(each, span.grain) == each for span in found for each in (span.start, span.end))
    assert all(span.start < span.end for span in found)
    assert len(found) <= 2 * len(GRAINS) - 1


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-11-01", "2026-12-01", [("month", "2026-11-01", "2026-12-01", 1)]),
        (
            # November in Berlin.
            "2026-10-31T23:00",
            "2026-11-30T23:00",
            [
                ("month", "2026-11-01", "2026-12-01", 1),
                ("quarter", "2026-10-31T23:00", "2026-11-01", 1),
                ("quarter", "2026-11-30T23:00", "2026-12-01", -1),
            ],
        ),
        (
            # The month to date.
            "2026-11-01",
            "2026-11-24T13:37:01",
            [
                ("month", "2026-11-01", "2026-12-01", 1),
                ("day", "2026-11-25", "2026-12-01", -1),
                ("quarter", "2026-11-24T13:45", "2026-11-25", -1),
            ],
        ),
        ("2026-11-10", "2026-11-11", [("day", "2026-11-10", "2026-11-11", 1)]),
        ("2026-11-10T12:15", "2026-11-10T12:30", [("quarter", "2026-11-10T12:15", "2026-11-10T12:30", 1)]),
        ("2026-11-10", "2026-11-10", []),
    ],
)
def test_examples(start: str, end: str, expected: list[tuple[str, str, str, int]]) -> None:
    """Months in a zone, the month to date, days and quarters are covered by what comes nearest."""
    found = spans(at(start), at(end))

    assert found == [Span(grain, at(since), at(until), sign) for grain, since, until, sign in expected]  # type: ignore[arg-type]


def test_a_part_of_a_quarter_takes_the_whole() -> None:
    """An end within a quarter hour takes all of it, as its sums cannot be divided."""
    found = spans(at("2026-11-10T12:15"), at("2026-11-10T12:15") + timedelta(microseconds=1))

    assert found == [Span("quarter", at("2026-11-10T12:15"), at("2026-11-10T12:30"), 1)]
