"""Refusals are counted by the hour, and shown as one document."""

from datetime import UTC, datetime

from meter.core.refusals import RefusalRow, hour_of, refusals_json


def test_an_hour_begins_on_the_hour() -> None:
    """An instant counts in the hour in UTC that holds it."""
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)

    assert hour_of(noon.replace(minute=59, second=59, microsecond=999_999)) == hour_of(noon) == noon


def test_refusals_have_a_total() -> None:
    """The document has a row for each key and reason, and their sum."""
    row = RefusalRow(team="t", key="k", key_id="id", reason="rate_limit_exceeded", count=3)

    document = refusals_json([row, row])

    assert document["total"] == {"count": 6}
    assert document["rows"][0] == {
        "team": "t",
        "key": "k",
        "key_id": "id",
        "reason": "rate_limit_exceeded",
        "count": 3,
    }
