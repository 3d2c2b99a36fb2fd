"""Instants in requests: RFC 3339 text, and nothing else.

The decoder would also take numbers, as seconds since 1970; nobody means that, and a slip would pass for one.
"""

from datetime import datetime

from meter.core.errors import InvalidRequest


def read_instant(text: str | None, param: str) -> datetime | None:
    """Read an instant with its offset from UTC; raises `InvalidRequest` naming the parameter."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidRequest(
            f"'{param}' must be a time with its offset from UTC, such as 2026-12-01T00:00:00Z.", param=param
        )
    return found
