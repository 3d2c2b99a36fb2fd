"""The table of outcomes: what an event says and charges, by how its attempt ended and what was observed."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.attempts import Attempt, Ending, conclude, succeeded
from meter.core.events import Outcome, UsageSource
from meter.core.observation import Observation
from meter.core.usage import ReportedUsage, TokenUsage

PROMPT_ESTIMATE = 40
ATTEMPT = Attempt(
    event_id="019ab1c2-0000-7000-8000-000000000000",
    started_at=datetime(2026, 11, 23, tzinfo=UTC),
    team_id="team",
    key_id="key",
    route="chat.completions",
    upstream="upstream",
    model="requested",
    stream=True,
    prompt_estimate=PROMPT_ESTIMATE,
    end_user="u-1",
    tags=("a", "b"),
)

USAGE = TokenUsage(10, 5, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=3)
REPORTED = ReportedUsage(10, 5, 15, 4, 2, None, 3)

# What an upstream may have said by the end.
FULL = Observation(usage=USAGE, reported=REPORTED, emitted_tokens=5, done=True)
# A running count, behind which more text came.
RUNNING = Observation(usage=USAGE, reported=REPORTED, emitted_tokens=9, emitted_since_usage=4)
SILENT = Observation(emitted_tokens=7)
UNUSABLE = Observation(
    reported=ReportedUsage(total_tokens=3, anomalies=("invalid_token_type",)), emitted_tokens=7
)
ZEROS = Observation(usage=TokenUsage(0, 0), reported=ReportedUsage(0, 0, 0), emitted_tokens=7)
ZEROS_FOR_NOTHING = Observation(usage=TokenUsage(0, 0), reported=ReportedUsage(0, 0, 0))
NOTHING = Observation()

Row = tuple[Outcome, Observation | None, UsageSource, int, int]
CUT_SHORT = (
    Outcome.CLIENT_CLOSED,
    Outcome.UPSTREAM_CLOSED,
    Outcome.UPSTREAM_TIMEOUT,
    Outcome.CUT,
    Outcome.INTERRUPTED,
)
TABLE: list[Row] = [
    # Finished, and the usage was read.
    (Outcome.OK, FULL, UsageSource.REPORTED, 10, 5),
    (Outcome.OK, RUNNING, UsageSource.REPORTED, 10, 5),
    (Outcome.OK, ZEROS_FOR_NOTHING, UsageSource.REPORTED, 0, 0),
    # Finished, without usage or with none that can be used.
    (Outcome.OK, SILENT, UsageSource.ESTIMATED, PROMPT_ESTIMATE, 7),
    (Outcome.OK, NOTHING, UsageSource.ESTIMATED, PROMPT_ESTIMATE, 0),
    (Outcome.OK, UNUSABLE, UsageSource.INVALID, PROMPT_ESTIMATE, 7),
    (Outcome.OK, ZEROS, UsageSource.INVALID, PROMPT_ESTIMATE, 7),
    # Cut short: reported if it came, never below what was emitted otherwise.
    *((outcome, FULL, UsageSource.REPORTED, 10, 5) for outcome in CUT_SHORT),
    *((outcome, RUNNING, UsageSource.ESTIMATED, 10, 9) for outcome in CUT_SHORT),
    *((outcome, SILENT, UsageSource.ESTIMATED, PROMPT_ESTIMATE, 7) for outcome in CUT_SHORT),
    *((outcome, NOTHING, UsageSource.ESTIMATED, PROMPT_ESTIMATE, 0) for outcome in CUT_SHORT),
    *((outcome, UNUSABLE, UsageSource.INVALID, PROMPT_ESTIMATE, 7) for outcome in CUT_SHORT),
    *((outcome, ZEROS, UsageSource.INVALID, PROMPT_ESTIMATE, 7) for outcome in CUT_SHORT),
    # Cut short before there were headers: the prompt may have been charged.
    *((outcome, None, UsageSource.ESTIMATED, PROMPT_ESTIMATE, 0) for outcome in CUT_SHORT),
    # The upstream refused: nothing, unless it sent usage.
    (Outcome.UPSTREAM_ERROR, NOTHING, UsageSource.NONE, 0, 0),
    (Outcome.UPSTREAM_ERROR, SILENT, UsageSource.NONE, 0, 0),
    (Outcome.UPSTREAM_ERROR, UNUSABLE, UsageSource.NONE, 0, 0),
    (Outcome.UPSTREAM_ERROR, FULL, UsageSource.REPORTED, 10, 5),
    # Not reached.
    (Outcome.UNREACHABLE, None, UsageSource.NONE, 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "observation", "source", "prompt", "completion"), TABLE)
def test_the_table_of_outcomes(
    outcome: Outcome, observation: Observation | None, source: UsageSource, prompt: int, completion: int
) -> None:
    """The event has the outcome, says where its numbers come from, and charges what the table says."""
    event = conclude(ATTEMPT, Ending(outcome=outcome), observation)

    assert event.outcome is outcome
    assert event.usage_source is source
    assert (event.prompt_tokens, event.completion_tokens) == (prompt, completion)


def test_every_outcome_is_in_the_table() -> None:
    """No outcome is left out of the table."""
    assert {row[0] for row in TABLE} == set(Outcome)


@pytest.mark.parametrize(("outcome", "observation", "source", "prompt", "completion"), TABLE)
def test_what_has_no_usage_costs_nothing_and_the_rest_is_unpriced(
    outcome: Outcome, observation: Observation | None, source: UsageSource, prompt: int, completion: int
) -> None:
    """The cost is 0 where there is nothing to pay for, and unknown where there is."""
    event = conclude(ATTEMPT, Ending(outcome=outcome), observation)

    assert event.cost == (0 if source is UsageSource.NONE else None)


def test_an_event_keeps_what_was_known_before() -> None:
    """What the request said stands in its event."""
    ending = Ending(outcome=Outcome.OK, status=200, ttfb_ms=12, duration_ms=345)

    event = conclude(ATTEMPT, ending, FULL)

    assert event.event_id == ATTEMPT.event_id
    assert event.started_at == ATTEMPT.started_at
    assert (event.team_id, event.key_id) == ("team", "key")
    assert (event.route, event.upstream) == ("chat.completions", "upstream")
    assert (event.model_requested, event.stream) == ("requested", True)
    assert (event.end_user, event.tags) == ("u-1", ("a", "b"))
    assert (event.status, event.ttfb_ms, event.duration_ms) == (200, 12, 345)


def test_an_event_keeps_what_was_observed() -> None:
    """What the response said stands in its event, all parts of the usage included."""
    observation = Observation(
        usage=USAGE,
        reported=REPORTED,
        usage_raw='{"prompt_tokens":10}',
        model="served",
        upstream_id="gen-1",
        service_tier="flex",
        finish_reasons=("stop", "length"),
        upstream_cost=Decimal("0.000123"),
        upstream_cost_source="usage.cost",
        anomalies=("total_mismatch",),
    )

    event = conclude(ATTEMPT, Ending(outcome=Outcome.OK), observation)

    assert (event.model_served, event.model) == ("served", "served")
    assert (event.upstream_id, event.service_tier) == ("gen-1", "flex")
    assert event.finish_reasons == ("stop", "length")
    assert event.usage_raw == '{"prompt_tokens":10}'
    assert event.anomalies == ("total_mismatch",)
    assert (event.upstream_cost, event.upstream_cost_source) == (123_000_000, "usage.cost")
    assert (event.cached_tokens, event.cache_write_tokens, event.reasoning_tokens) == (4, 2, 3)


def test_an_attempt_without_a_response_observed_nothing() -> None:
    """Where no response came, the event says nothing about one."""
    event = conclude(ATTEMPT, Ending(outcome=Outcome.UNREACHABLE), None)

    assert (event.status, event.model_served, event.usage_raw, event.upstream_cost) == (None,) * 4
    assert event.model == "requested"


@pytest.mark.parametrize(
    ("cost", "picodollars"),
    [("0", 0), ("0.0000000000004", 0), ("0.0000000000005", 1), ("1.5", 1_500_000_000_000)],
)
def test_a_cost_that_the_upstream_reports_is_kept_beside_ours(cost: str, picodollars: int) -> None:
    """The upstream's own cost is kept in picodollars, to the nearest one, and is not ours."""
    event = conclude(
        ATTEMPT, Ending(outcome=Outcome.OK), Observation(usage=USAGE, upstream_cost=Decimal(cost))
    )

    assert event.upstream_cost == picodollars
    assert event.cost is None


@given(
    st.sampled_from(CUT_SHORT),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.booleans(),
)
def test_what_the_client_saw_is_charged(outcome: Outcome, before: int, since: int, sent_usage: bool) -> None:
    """An attempt that was cut short is never charged less than what was emitted since its last usage."""
    usage = TokenUsage(10, before) if sent_usage else None
    reported = ReportedUsage(10, before) if sent_usage else None
    seen = Observation(
        usage=usage, reported=reported, emitted_tokens=before + since, emitted_since_usage=since
    )

    event = conclude(ATTEMPT, Ending(outcome=outcome), seen)

    assert event.completion_tokens >= before + since


@pytest.mark.parametrize(
    ("status", "announces"),
    [(199, False), (200, True), (201, True), (299, True), (301, False), (400, False), (500, False)],
)
def test_which_statuses_announce_a_completion(status: int, announces: bool) -> None:
    """Only the statuses of success do; a redirect, which is not followed, does not."""
    assert succeeded(status) is announces
