"""Views: addresses of the spend page, read and written."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from meter.core.reports import Question, question
from meter.core.views import View, asked, query, read, stack_of, unit_of

NOW = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)


def reach(given: dict[str, str]) -> Question:
    """Return the question that an address asks."""
    return question(asked(read(given), NOW), NOW)


def test_an_address_is_read_as_it_was_written() -> None:
    """What differs from the usual is in the address, and nothing else."""
    view = View(period="7d", tz="Europe/Berlin", stack="model", team="a&b=c", find="é", sort="key", page=3)

    assert read(dict(parse_qsl(query(view)))) == view
    assert query(View()) == ""
    assert query(view, period="month", team="", find="", page=1) == "tz=Europe%2FBerlin&stack=model&sort=key"


@pytest.mark.parametrize(
    ("given", "since", "until"),
    [
        ({}, "2026-11-01T00:00", "2026-11-25T23:30"),
        ({"period": "today"}, "2026-11-25T00:00", "2026-11-25T23:30"),
        ({"period": "7d"}, "2026-11-19T00:00", "2026-11-25T23:30"),
        ({"period": "30d"}, "2026-10-27T00:00", "2026-11-25T23:30"),
        ({"period": "last-month"}, "2026-10-01T00:00", "2026-11-01T00:00"),
        ({"period": "12m"}, "2025-12-01T00:00", "2026-11-25T23:30"),
        ({"period": "today", "tz": "Asia/Tokyo"}, "2026-11-25T15:00", "2026-11-25T23:30"),
        ({"since": "2026-10", "until": "2026-10-15"}, "2026-10-01T00:00", "2026-10-15T00:00"),
        ({"period": "7d", "since": "2026-11-20"}, "2026-11-20T00:00", "2026-11-25T23:30"),
        ({"period": "custom"}, "2026-11-01T00:00", "2026-11-25T23:30"),
    ],
)
def test_periods_have_names(given: dict[str, str], since: str, until: str) -> None:
    """A named period ends now or at a midnight of the zone, and dates win over names."""
    found = reach(given)

    assert f"{found.since:%Y-%m-%dT%H:%M}" == since
    assert f"{found.until:%Y-%m-%dT%H:%M}" == until


def test_the_usual_view_is_the_usual_report() -> None:
    """Without any choice the page asks what a report without bounds asks."""
    assert asked(View(), NOW).since is None
    assert asked(View(), NOW).until is None


def test_another_period_has_no_dates() -> None:
    """A link to a named period does not carry the dates of a custom one along."""
    view = read({"since": "2026-10-01", "until": "2026-10-15", "team": "x"})

    assert query(view) == "period=custom&since=2026-10-01&until=2026-10-15&team=x"
    assert query(view, period="7d") == "period=7d&team=x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("period", "century"),
        ("unit", "minute"),
        ("stack", "user"),
        ("measure", "joy"),
        ("sort", "-secret"),
        ("page", "0"),
        ("page", "-1"),
        ("page", "1e9"),
        ("page", "9" * 50),
        ("team", "x" * 301),
        ("tz", "Mars/Olympus"),
    ],
)
def test_what_cannot_be_shown_is_named(name: str, value: str) -> None:
    """A parameter that is wrong is refused by its name, and a zone by its own."""
    with pytest.raises(ValueError, match=f"'{name}'|Mars/Olympus"):
        read({name: value})


def test_parameters_of_others_are_left_alone() -> None:
    """Links get parameters on their way, of which the page knows nothing."""
    assert read({"utm_source": "mail", "team": " "}) == View()


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        ({"period": "today"}, "hour"),
        ({"period": "7d"}, "day"),
        ({"since": "2026-06-01"}, "week"),
        ({"period": "12m"}, "month"),
        ({"period": "7d", "unit": "hour"}, "hour"),
        ({"period": "12m", "unit": "week"}, "week"),
    ],
)
def test_bars_are_as_long_as_fits(given: dict[str, str], unit: str) -> None:
    """Short periods are shown by hour, long ones by month, unless somebody chooses otherwise."""
    assert unit_of(read(given), reach(given)) == unit


def test_there_are_never_too_many_bars() -> None:
    """A year by hour is refused, with what to do instead."""
    given = {"period": "12m", "unit": "hour"}

    with pytest.raises(ValueError, match="choose a longer unit"):
        unit_of(read(given), reach(given))


def test_a_single_team_is_stacked_by_model() -> None:
    """One colour would say nothing."""
    everything = reach({})
    one = Question(by=(), since=everything.since, until=NOW, tz=UTC, scope_team_id="t")

    assert stack_of(View(), everything) == "team"
    assert stack_of(View(), one) == "model"
    assert stack_of(View(stack="key"), one) == "key"
