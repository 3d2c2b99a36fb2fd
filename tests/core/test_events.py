"""An event's id is a UUIDv7, and an event says which model it is for and whether it failed."""

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7

times = st.integers(0, 2**48 - 1)
randomness = st.binary(min_size=10, max_size=10)


def event(outcome: Outcome, *, model_served: str | None = None) -> UsageEvent:
    """Make an event that ended so."""
    return UsageEvent(
        event_id="019ab1c2-0000-7000-8000-000000000000",
        started_at=datetime(2026, 11, 23, tzinfo=UTC),
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model_requested="requested",
        model_served=model_served,
        stream=False,
        outcome=outcome,
        usage_source=UsageSource.REPORTED,
        prompt_tokens=7,
        completion_tokens=5,
        cached_tokens=3,
        reasoning_tokens=2,
    )


def test_the_example_of_the_rfc() -> None:
    """The example of RFC 9562, appendix A.6, comes out digit by digit."""
    # Bits of rand_a (0xCC3) below the version, of rand_b (0x18C4DC0C0C07398F) below the variant.
    drawn = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")

    assert uuid7(0x017F22E279B0, drawn) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(times, randomness)
def test_the_layout_is_that_of_version_7(at_ms: int, drawn: bytes) -> None:
    """48 bits of time, the version, 12 random bits, the variant, 62 random bits."""
    text = uuid7(at_ms, drawn)

    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == at_ms
    random_bits = int.from_bytes(drawn, "big")
    assert parsed.int >> 64 & 0xFFF == random_bits >> 64 & 0xFFF
    assert parsed.int & (2**62 - 1) == random_bits & (2**62 - 1)


@given(st.lists(st.tuples(times, randomness), min_size=2, unique_by=lambda drawn: drawn[0]))
def test_ids_sort_by_time(drawn: list[tuple[int, bytes]]) -> None:
    """Ids, as text, are in the order of their milliseconds, whatever the random bits."""
    in_time = sorted(drawn)

    assert sorted(uuid7(*each) for each in drawn) == [uuid7(*each) for each in in_time]


def test_ids_of_one_millisecond_differ_by_their_randomness() -> None:
    """At one instant every random bit that is kept makes another id."""
    ids = {uuid7(1, (1 << bit).to_bytes(10, "big")) for bit in range(80)}

    # Four bits give way to the version, two to the variant; what they held is the same id without them.
    assert len(ids) == 74 + 1


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome.OK, False),
        (Outcome.CLIENT_CLOSED, False),
        (Outcome.UPSTREAM_CLOSED, True),
        (Outcome.UPSTREAM_TIMEOUT, True),
        (Outcome.CUT, True),
        (Outcome.UPSTREAM_ERROR, True),
        (Outcome.UNREACHABLE, True),
        (Outcome.INTERRUPTED, True),
    ],
)
def test_which_outcomes_are_failures(outcome: Outcome, failed: bool) -> None:
    """A client that leaves is no failure; everything else but success is."""
    assert event(outcome).failed is failed


def test_an_event_is_for_the_model_that_answered() -> None:
    """The served model counts, and the requested one where the answer named none."""
    assert event(Outcome.OK, model_served="served").model == "served"
    assert event(Outcome.OK).model == "requested"


def test_parts_are_not_added_to_the_total() -> None:
    """Cached and reasoning tokens are parts of prompt and completion."""
    assert event(Outcome.OK).total_tokens == 12


@pytest.mark.parametrize("value", [*Outcome, *UsageSource])
def test_names_read_as_they_are_stored(value: Outcome | UsageSource) -> None:
    """Outcomes and sources are written in metrics and tables by their value alone."""
    assert f"{value}" == str(value) == value.value
    assert value.value.replace("_", "").islower()
