"""Entries of the audit log travel as they are."""

from datetime import UTC, datetime

import msgspec

from meter.core.audit import Entry


def test_an_entry_is_shown_with_all_it_has() -> None:
    """What is stored is what the API and the command line show."""
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    entry = Entry(id=1, at=at, actor="a@b", action="key.create", target="x", details={"team": "t"})

    assert msgspec.json.decode(msgspec.json.encode(entry)) == {
        "id": 1,
        "at": "2026-11-25T12:00:00Z",
        "actor": "a@b",
        "action": "key.create",
        "target": "x",
        "details": {"team": "t"},
    }
