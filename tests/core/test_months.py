"""Closed months: how they are written, when a month can be closed, and what counts where."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.months import ClosedMonth, closable, counted, parse_month
from tests.core.test_rollup import make

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
POSTED = datetime(2026, 11, 5, tzinfo=UTC)


def test_a_month_is_one_of_utc() -> None:
    """A written month is the one in UTC, from its first instant to that of the next."""
    month = parse_month("2026-10")

    assert (month.label, month.start, month.end) == ("2026-10", OCTOBER, NOVEMBER)
    assert ClosedMonth(OCTOBER, POSTED, "somebody").label == "2026-10"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "0000-01",
        "2026-1",
        "2026-10-01",
        "26-10",
        "October",
        " 2026-10",
        "9999-12",
    ],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    """Anything else is refused, saying how a month is written."""
    with pytest.raises(ValueError, match="not a month") as caught:
        parse_month(text)

    assert "use 2026-11" in str(caught.value)


def test_a_month_can_be_closed_once_it_is_over() -> None:
    """The last instant of a month is too early, and the first of the next one is not."""
    with pytest.raises(ValueError, match="2026-10 is not over"):
        closable("2026-10", NOVEMBER - INSTANT)

    assert closable("2026-10", NOVEMBER).start == OCTOBER


@pytest.mark.parametrize(
    ("started_at", "closed", "counted_at"),
    [
        (OCTOBER, {OCTOBER}, POSTED),
        (NOVEMBER - INSTANT, {OCTOBER}, POSTED),
        (OCTOBER - INSTANT, {OCTOBER}, None),
        (NOVEMBER, {OCTOBER}, None),
        (OCTOBER, set(), None),
        (OCTOBER, {NOVEMBER}, None),
        # It is November in Kolkata, and October in UTC.
        (datetime.fromisoformat("2026-11-01T05:29:59+05:30"), {OCTOBER}, POSTED),
        (datetime.fromisoformat("2026-11-01T05:30:00+05:30"), {OCTOBER}, None),
    ],
)
def test_what_belongs_to_a_closed_month_counts_when_it_is_posted(
    started_at: datetime, closed: set[datetime], counted_at: datetime | None
) -> None:
    """An event of a closed month counts at its posting, any other one when it started."""
    (event,) = counted([make(at=started_at)], closed, POSTED)

    assert event == make(at=started_at, counted_at=counted_at)
