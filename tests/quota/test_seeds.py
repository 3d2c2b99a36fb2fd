"""Crashes, cancels and lost answers; `make quota` runs many more seeds."""

from tests.quota.seeds import violations

SEEDS = 30


def test_crashes_and_lost_answers_leave_nothing_reserved() -> None:
    """Whatever dies, leaves or is never heard of, no budget is passed, and in the end nothing is reserved."""
    faults = [fault for _, found in violations(range(SEEDS)) for fault in found]

    assert not faults, "\n".join(faults)
