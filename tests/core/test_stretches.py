"""A report's time is cut into stretches that lie in one period of each kind."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from meter.core.period import BUCKET, Unit, period_of, zone
from meter.core.stretches import periods_at, steady, stretches

RANDOM = Random(3)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
UNITS: list[tuple[Unit, ...]] = [(), ("day",), ("week", "month"), ("month", "day"), ("hour", "week")]


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("units", UNITS, ids=str)
@pytest.mark.parametrize("name", ZONES)
def test_stretches_follow_each_other(name: str, units: tuple[Unit, ...]) -> None:
    """Stretches cover the question without gaps, and each lies in one period of each unit."""
    tz = zone(name)
    since = at("2026-01-01") + RANDOM.randrange(96 * 30) * BUCKET
    until = since + RANDOM.randrange(1, 96 * 300) * BUCKET

    found = list(stretches(since, until, units, tz))

    assert found[0].start == since
    assert found[-1].end == until
    assert all(one.end == other.start for one, other in pairwise(found))
    for stretch in found:
        last = stretch.end - timedelta(microseconds=1)
        assert stretch.periods == periods_at(stretch.start, units, tz) == periods_at(last, units, tz)


def test_without_units_there_is_one_stretch() -> None:
    """A question by no time is about one stretch, and one about no time has none."""
    since, until = at("2026-11-01"), at("2026-11-24T13:45")

    assert [(each.start, each.end) for each in stretches(since, until, (), UTC)] == [(since, until)]
    assert list(stretches(since, since, (), UTC)) == []


@pytest.mark.parametrize("name", ZONES)
def test_steady_stretches_have_one_offset(name: str) -> None:
    """Within a steady stretch clocks are never changed, and between two of them they are."""
    tz = zone(name)
    since, until = at("2025-12-31T23:45"), at("2027-01-01")

    found = list(steady(since, until, tz))

    assert (found[0][0], found[-1][1]) == (since, until)
    for start, end in found:
        offsets = {
            (start + number * BUCKET).astimezone(tz).utcoffset() for number in range((end - start) // BUCKET)
        }
        assert len(offsets) == 1
    for (_, change), (again, _) in pairwise(found):
        assert change == again
        assert (change - BUCKET).astimezone(tz).utcoffset() != change.astimezone(tz).utcoffset()


def test_periods_are_named_in_the_order_of_units() -> None:
    """The periods that hold an instant come in the order in which they are asked for."""
    noon = at("2026-11-24T12:00")

    assert periods_at(noon, ("month", "day"), UTC) == (
        period_of(noon, "month", UTC),
        period_of(noon, "day", UTC),
    )
