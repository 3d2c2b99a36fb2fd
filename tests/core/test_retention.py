"""The horizon is the first instant of a month in UTC, and says so."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.retention import BeforeHorizon, Month, Plan, as_json, check_since, wanted_horizon

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "months", "expected"),
    [
        ("2026-11-25T12:00+00:00", 1, "2026-10-01"),
        ("2026-11-25T12:00+00:00", 10, "2026-01-01"),
        ("2026-11-25T12:00+00:00", 11, "2025-12-01"),
        ("2026-11-25T12:00+00:00", 13, "2025-10-01"),
        ("2026-12-31T23:59+00:00", 12, "2025-12-01"),
        # Still December in UTC.
        ("2027-01-01T00:30+01:00", 1, "2026-11-01"),
        ("2026-11-25T12:00+00:00", 1200, "1926-11-01"),
    ],
)
def test_whole_months_are_kept_beside_the_running_one(now: str, months: int, expected: str) -> None:
    """The ledger begins so many months before the month that runs."""
    assert wanted_horizon(datetime.fromisoformat(now), months).isoformat() == f"{expected}T00:00:00+00:00"


def test_what_needs_older_events_is_refused_with_where_they_begin() -> None:
    """The refusal names the horizon and what to do; from the horizon on there is none."""
    with pytest.raises(BeforeHorizon) as refused:
        check_since("Reports by user read", NOVEMBER - timedelta(minutes=15), NOVEMBER)

    assert refused.value.message.startswith("Reports by user read the events themselves")
    assert "begins at 2026-11-01T00:00Z" in refused.value.message
    assert "from 2026-11-01 (UTC) on" in refused.value.message
    assert (refused.value.status, refused.value.param) == (400, "since")
    check_since("Reports by user read", NOVEMBER, NOVEMBER)
    check_since("Reports by user read", datetime(2000, 1, 1, tzinfo=UTC), None)


def test_a_plan_as_json() -> None:
    """A program reads where the ledger begins, where it is to begin, and what leaves."""
    plan = Plan(None, NOVEMBER, (Month("2026-09", 3), Month("2026-10", 4)))

    assert as_json(plan, applied=False) == {
        "applied": False,
        "horizon": None,
        "wanted": "2026-11-01T00:00Z",
        "months": [{"label": "2026-09", "events": 3}, {"label": "2026-10", "events": 4}],
        "events": 7,
    }
