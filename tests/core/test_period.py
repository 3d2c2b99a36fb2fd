"""Periods on the wall clock of a zone: no gap, no overlap, days of 23 and 25 hours."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from meter.core.period import (
    BUCKET,
    Period,
    Unit,
    bucket,
    month_start,
    parse_duration,
    parse_instant,
    period_of,
    periods,
    zone,
)

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
KOLKATA = "Asia/Kolkata"
LORD_HOWE = "Australia/Lord_Howe"
# Clocks that change at midnight, by half an hour, by two hours, or stand on odd quarters.
ZONES = (
    "UTC",
    BERLIN,
    NEW_YORK,
    KOLKATA,
    LORD_HOWE,
    "America/Havana",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
)
UNITS: tuple[Unit, ...] = get_args(Unit)


def changes(tz: str) -> Iterator[datetime]:
    """Yield the days of 2026 and 2027 within which the clocks of a zone change."""
    midnights = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(730)]
    for before, after in pairwise(midnights):
        if before.astimezone(zone(tz)).utcoffset() != after.astimezone(zone(tz)).utcoffset():
            yield before


CHANGES = [(change, tz) for tz in ZONES for change in changes(tz)]

instants = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the zone)

# Any instant in any zone, and as often one around a change of the zone's clocks.
moments = st.tuples(instants, st.sampled_from(ZONES)) | st.builds(
    lambda change, after: (change[0] + after, change[1]),
    st.sampled_from(CHANGES),
    st.timedeltas(timedelta(days=-1), timedelta(days=2)),
)


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "unit", "tz", "label", "start", "end"),
    [
        # Plain days.
        ("2026-11-23T12:34", "day", "UTC", "2026-11-23", "2026-11-23T00:00", "2026-11-24T00:00"),
        ("2026-11-23T00:00", "day", "UTC", "2026-11-23", "2026-11-23T00:00", "2026-11-24T00:00"),
        ("2026-11-22T23:59:59.999999", "day", "UTC", "2026-11-22", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("2026-11-23T18:29", "day", KOLKATA, "2026-11-23", "2026-11-22T18:30", "2026-11-23T18:30"),
        ("2026-11-23T18:30", "day", KOLKATA, "2026-11-24", "2026-11-23T18:30", "2026-11-24T18:30"),
        ("2026-11-23T23:30", "day", BERLIN, "2026-11-24", "2026-11-23T23:00", "2026-11-24T23:00"),
        ("2026-11-24T04:59", "day", NEW_YORK, "2026-11-23", "2026-11-23T05:00", "2026-11-24T05:00"),
        # Days on which clocks change.
        ("2026-03-29T12:00", "day", BERLIN, "2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("2026-10-25T12:00", "day", BERLIN, "2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("2026-03-08T12:00", "day", NEW_YORK, "2026-03-08", "2026-03-08T05:00", "2026-03-09T04:00"),
        ("2026-11-01T12:00", "day", NEW_YORK, "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00"),
        ("2026-10-03T20:00", "day", LORD_HOWE, "2026-10-04", "2026-10-03T13:30", "2026-10-04T13:00"),
        ("2026-04-04T20:00", "day", LORD_HOWE, "2026-04-05", "2026-04-04T13:00", "2026-04-05T13:30"),
        # Weeks start on Monday, also across years and changes of clocks.
        ("2026-11-22T23:59", "week", "UTC", "2026-11-16", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("2027-01-01T00:00", "week", "UTC", "2026-12-28", "2026-12-28T00:00", "2027-01-04T00:00"),
        ("2026-10-25T12:00", "week", BERLIN, "2026-10-19", "2026-10-18T22:00", "2026-10-25T23:00"),
        # Months: their ends, leap days, years.
        ("2026-11-30T23:59", "month", "UTC", "2026-11", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("2026-12-31T23:59", "month", "UTC", "2026-12", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("2026-01-31T12:00", "month", "UTC", "2026-01", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("2028-02-29T12:00", "month", "UTC", "2028-02", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("2026-02-28T23:59", "month", "UTC", "2026-02", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("2026-10-31T22:59", "month", BERLIN, "2026-10", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("2026-10-31T23:00", "month", BERLIN, "2026-11", "2026-10-31T23:00", "2026-11-30T23:00"),
        ("2026-11-01T03:59", "month", NEW_YORK, "2026-10", "2026-10-01T04:00", "2026-11-01T04:00"),
    ],
)  # fmt: skip
def test_the_period_that_holds_an_instant(
    instant: str, unit: Unit, tz: str, label: str, start: str, end: str
) -> None:
    """The bounds are those of the wall clock, as instants in UTC."""
    assert period_of(at(instant), unit, zone(tz)) == Period(label, at(start), at(end))


@pytest.mark.parametrize(
    ("tz", "instant", "label", "start"),
    [
        ("UTC", "2026-11-23T12:34", "2026-11-23T12:00+00:00", "2026-11-23T12:00"),
        (KOLKATA, "2026-11-23T12:34", "2026-11-23T18:00+05:30", "2026-11-23T12:30"),
        # The hour that comes twice is two periods.
        (BERLIN, "2026-10-25T00:30", "2026-10-25T02:00+02:00", "2026-10-25T00:00"),
        (BERLIN, "2026-10-25T01:30", "2026-10-25T02:00+01:00", "2026-10-25T01:00"),
        (NEW_YORK, "2026-11-01T05:59", "2026-11-01T01:00-04:00", "2026-11-01T05:00"),
        (NEW_YORK, "2026-11-01T06:00", "2026-11-01T01:00-05:00", "2026-11-01T06:00"),
        (BERLIN, "2026-03-29T01:00", "2026-03-29T03:00+02:00", "2026-03-29T01:00"),
        (LORD_HOWE, "2026-10-03T15:29", "2026-10-04T01:00+10:30", "2026-10-03T14:30"),
    ],
)
def test_the_hour_that_holds_an_instant(tz: str, instant: str, label: str, start: str) -> None:
    """An hour begins when the wall clock shows it, and its label says with which offset."""
    expected = Period(label, at(start), at(start) + timedelta(hours=1))

    assert period_of(at(instant), "hour", zone(tz)) == expected


@pytest.mark.parametrize(
    ("instant", "label", "start", "end"),
    [
        # The clock goes from 02:00 to 02:30: half of that hour is left.
        ("2026-10-03T15:45", "2026-10-04T02:30+11:00", "2026-10-03T15:30", "2026-10-03T16:00"),
        # It goes from 02:00 back to 01:30: half an hour comes again.
        ("2026-04-04T15:15", "2026-04-05T01:30+10:30", "2026-04-04T15:00", "2026-04-04T15:30"),
    ],
)
def test_a_jump_of_half_an_hour_cuts_the_hour(instant: str, label: str, start: str, end: str) -> None:
    """Where clocks jump by half an hour, the hour after the jump begins at the jump."""
    assert period_of(at(instant), "hour", zone(LORD_HOWE)) == Period(label, at(start), at(end))


@pytest.mark.parametrize(
    ("day", "tz", "hours"),
    [
        ("2026-03-29T12:00", BERLIN, 23),
        ("2026-10-25T12:00", BERLIN, 25),
        ("2026-06-01T12:00", BERLIN, 24),
        ("2026-03-08T12:00", NEW_YORK, 23),
        ("2026-11-01T12:00", NEW_YORK, 25),
        ("2026-03-29T12:00", KOLKATA, 24),
        ("2026-10-03T20:00", LORD_HOWE, 23.5),
        ("2026-04-04T20:00", LORD_HOWE, 24.5),
        ("2026-03-29T12:00", "UTC", 24),
    ],
)
def test_a_day_is_as_long_as_its_clocks_make_it(day: str, tz: str, hours: float) -> None:
    """A day on which clocks change has 23 or 25 hours, on Lord Howe half an hour less or more."""
    period = period_of(at(day), "day", zone(tz))

    assert period.end - period.start == timedelta(hours=hours)


@given(moments, st.timedeltas(timedelta(microseconds=1), timedelta(days=5)), st.sampled_from(UNITS))
@example((at("2026-10-03T14:00"), LORD_HOWE), timedelta(hours=3), "hour")
@example((at("2026-10-25T00:00"), BERLIN), timedelta(hours=3), "hour")
@example((at("2026-11-01T03:00"), "America/Havana"), timedelta(days=2), "day")
def test_periods_cover_a_stretch_without_gaps(
    moment: tuple[datetime, str], length: timedelta, unit: Unit
) -> None:
    """The periods are in order, each begins where the last one ended, and together they cover it all."""
    since, tz = moment
    until = since + length

    found = list(periods(since, until, unit, zone(tz)))

    assert found[0].start <= since < found[0].end
    assert found[-1].start < until <= found[-1].end
    assert all(period.start < period.end for period in found)
    assert all(before.end == after.start for before, after in pairwise(found))
    assert len({period.label for period in found}) == len(found)


@given(moments, st.sampled_from(UNITS))
def test_a_period_is_the_same_for_every_instant_in_it(moment: tuple[datetime, str], unit: Unit) -> None:
    """The period of an instant holds it, and is also that of its first and its last instant."""
    instant, tz = moment

    found = period_of(instant, unit, zone(tz))
    last = found.end - timedelta(microseconds=1)

    assert found.start <= instant < found.end
    assert period_of(found.start, unit, zone(tz)) == found
    assert period_of(last, unit, zone(tz)) == found


@given(moments, st.sampled_from(UNITS))
def test_every_period_begins_on_a_quarter_of_an_hour(moment: tuple[datetime, str], unit: Unit) -> None:
    """No period cuts a quarter hour in two, so that the rollup can answer for every zone."""
    instant, tz = moment

    start = period_of(instant, unit, zone(tz)).start

    assert start == bucket(start)


def test_no_periods_in_an_empty_stretch() -> None:
    """A stretch that ends where it begins has no periods."""
    assert list(periods(at("2026-11-23"), at("2026-11-23"), "day", UTC)) == []


@pytest.mark.parametrize(
    ("instant", "start"),
    [
        ("2026-11-23T12:00", "2026-11-23T12:00"),
        ("2026-11-23T12:14:59.999999", "2026-11-23T12:00"),
        ("2026-11-23T12:15", "2026-11-23T12:15"),
        ("2026-11-23T12:44:00.000001", "2026-11-23T12:30"),
        ("2026-11-23T23:59:59", "2026-11-23T23:45"),
    ],
)
def test_a_bucket_is_a_quarter_hour(instant: str, start: str) -> None:
    """The bucket of an instant is the quarter hour before it."""
    assert bucket(at(instant)) == at(start)


@given(instants)
def test_an_instant_lies_in_its_bucket(instant: datetime) -> None:
    """A bucket begins at or before its instants and ends after them."""
    assert bucket(instant) <= instant < bucket(instant) + BUCKET
    assert bucket(bucket(instant)) == bucket(instant)


def test_a_month_starts_by_the_wall_clock() -> None:
    """The month to date begins at midnight of its first day, there."""
    now = at("2026-10-31T23:30")

    assert month_start(now, zone(BERLIN)) == at("2026-10-31T23:00")
    assert month_start(now, zone(NEW_YORK)) == at("2026-10-01T04:00")


@pytest.mark.parametrize(
    ("text", "tz", "instant"),
    [
        ("2026-11-23", "UTC", "2026-11-23T00:00"),
        ("2026-11-23", BERLIN, "2026-11-22T23:00"),
        ("2026-07-23", BERLIN, "2026-07-22T22:00"),
        ("2026-11", BERLIN, "2026-10-31T23:00"),
        ("2026-11", "UTC", "2026-11-01T00:00"),
        ("2026-11-23T14:00", BERLIN, "2026-11-23T13:00"),
        ("2026-11-23 14:00", BERLIN, "2026-11-23T13:00"),
        ("2026-11-23T14:00Z", BERLIN, "2026-11-23T14:00"),
        ("2026-11-23T14:00+05:30", BERLIN, "2026-11-23T08:30"),
        ("2026-11-23", KOLKATA, "2026-11-22T18:30"),
    ],
)
def test_a_written_instant_is_meant_in_the_zone(text: str, tz: str, instant: str) -> None:
    """A date without an offset is meant in the zone, one with an offset says so itself."""
    assert parse_instant(text, zone(tz)) == at(instant)


@pytest.mark.parametrize(
    "text", ["", "today", "2026", "2026-13", "2026-02-29", "2026-11-23T25:00", "23.11.2026", "9" * 5000]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    """A text that is no date is an error that shows how to write one."""
    with pytest.raises(ValueError, match="use 2026-11-23"):
        parse_instant(text, UTC)


@pytest.mark.parametrize(("text", "tz"), [("0001-01-01", KOLKATA), ("9999-12-31T23:59", NEW_YORK)])
def test_a_date_beyond_the_calendar_is_refused(text: str, tz: str) -> None:
    """A date whose instant in UTC no calendar has is refused like any other that cannot be read."""
    with pytest.raises(ValueError, match="not a date"):
        parse_instant(text, zone(tz))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("007d", timedelta(days=7)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    """Minutes, hours, days and weeks can be written."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "d", "90", "0d", "-1d", "1.5h", "1y", "1D", " 1d", "1 d", "\u00b2d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Anything else is an error that shows how to write one."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9999999999d", "999999999999999999999w"])
def test_a_duration_beyond_the_calendar_is_refused(text: str) -> None:
    """A duration longer than any calendar is refused like any other that cannot be read."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe", "CE\0T", "x" * 5000]
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    """A name that no time zone has is an error, whatever files lie beside the database of zones."""
    with pytest.raises(ValueError, match="unknown time zone"):
        zone(name)


@given(st.text(max_size=40))
def test_no_name_of_a_zone_breaks_the_look_up(name: str) -> None:
    """Whatever is written for a zone, the only fault is a `ValueError`."""
    assume(name not in ZONES)

    try:
        found = zone(name)
    except ValueError:
        return
    assert found.utcoffset(at("2026-11-23").replace(tzinfo=None)) is not None
