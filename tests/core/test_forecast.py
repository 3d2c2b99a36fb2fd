"""Spending is projected by the rate of what has passed of a window."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.forecast import Forecast, forecast

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)


def on(day: float) -> datetime:
    """Return an instant so many days into the window."""
    return START + timedelta(days=day)


@pytest.mark.parametrize(
    ("spent", "limit", "now", "expected"),
    [
        # 10 a day: 300 in the end, 200 at the end of the twentieth day.
        (100, 200, on(10), Forecast(300, on(20))),
        (100, 300, on(10), Forecast(300, END)),
        (100, 301, on(10), Forecast(300, None)),
        (100, None, on(10), Forecast(300, None)),
        # What is reached already was reached by now.
        (200, 200, on(10), Forecast(600, on(10))),
        (0, 0, on(10), Forecast(0, on(10))),
        # Nothing can be said before anything has passed, or where nothing was spent.
        (0, 200, on(10), Forecast(0, None)),
        (50, 200, START, Forecast(50, None)),
        (-5, 200, on(10), Forecast(-15, None)),
        # A window that is over is what it was.
        (100, 200, END, Forecast(100, None)),
        (100, 50, on(45), Forecast(100, END)),
        # Far beyond 64 bits.
        (10**30, 2 * 10**30, on(15), Forecast(2 * 10**30, END)),
    ],
)
def test_forecast(spent: int, limit: int | None, now: datetime, expected: Forecast) -> None:
    """The projection goes on at the rate so far, and says when that reaches the limit."""
    assert forecast(spent, limit, START, END, now) == expected


def test_an_empty_window_has_no_rate() -> None:
    """A window without length is what was spent in it."""
    assert forecast(5, 10, START, START, START) == Forecast(5, None)
