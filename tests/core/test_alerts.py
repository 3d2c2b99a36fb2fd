"""When somebody is told about a budget, how a message is signed, and how often it is tried."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from meter.core.alerts import PAUSES_SECONDS, next_attempt, reached, signature

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 49, ()),
        (0, 50, (50,)),
        (49, 50, (50,)),
        (50, 79, ()),
        (0, 1000, (50, 80, 100)),
        (79, 100, (80, 100)),
        (100, 101, ()),
        # A correction may take it back.
        (90, 40, ()),
    ],
)
def test_thresholds_are_reached_once(before: int, after: int, expected: tuple[int, ...]) -> None:
    """A threshold counts when a sum comes to it or passes it, from below."""
    assert reached((50, 80, 100), 100, before, after) == expected


def test_thresholds_are_exact() -> None:
    """A third of a percent below is not reached."""
    assert reached((80,), 3, 0, 2) == ()
    assert reached((66,), 3, 0, 2) == (66,)


def test_a_limit_of_nothing_reaches_nothing() -> None:
    """No part of nothing can be reached."""
    assert reached((50, 100), 0, 0, 5) == ()


def test_a_receiver_can_check_a_signature() -> None:
    """It is the HMAC of time and body, so that neither can be exchanged."""
    expected = hmac.new(b"secret", b'1764000000.{"a":1}', hashlib.sha256).hexdigest()

    assert signature(b"secret", b'{"a":1}', 1764000000) == f"t=1764000000,v1={expected}"


def test_pauses_grow_and_end() -> None:
    """Each failure is followed by a longer pause, and the last one by none."""
    times = [next_attempt(attempts, NOON) for attempts in range(1, len(PAUSES_SECONDS) + 2)]

    assert times == [*(NOON + timedelta(seconds=pause) for pause in PAUSES_SECONDS), None]
    assert list(PAUSES_SECONDS) == sorted(PAUSES_SECONDS)
