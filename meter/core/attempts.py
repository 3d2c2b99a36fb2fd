"""From an attempt and how it ended to the event: the table of outcomes.

| what happened | usage source | charged |
|---|---|---|
| usage came | `reported` | the usage |
| usage came and was unusable | `invalid` | the estimate |
| no usage, although there was a response or may have been one | `estimated` | the estimate |
| the upstream refused, or was not reached | `none` | nothing |

The estimate is the prompt's size and what was emitted; it never goes below what the client has seen. Under a
strict budget it is what was reserved.
"""

from datetime import datetime

import msgspec

from meter.core.bounds import Bound
from meter.core.events import Outcome, Reserved, UsageEvent, UsageSource
from meter.core.money import round_usd
from meter.core.observation import Observation
from meter.core.usage import TokenUsage

_NOTHING_SEEN = Observation()
_NOTHING_USED = TokenUsage(prompt_tokens=0, completion_tokens=0)

# No request has so many, and sums of counts near 2**63 would not fit a column any more.
TOKENS_CHARGED_MAX = 10**12


def succeeded(status: int) -> bool:
    """Say whether a status announces a completion; a redirect, which is not followed, does not."""
    return 200 <= status < 300  # noqa: PLR2004 (the statuses of success)


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known of an attempt before its first byte goes upstream."""

    event_id: str
    started_at: datetime
    team_id: str
    key_id: str
    route: str
    upstream: str
    model: str
    stream: bool
    prompt_estimate: int
    """Tokens of the request's text, by the estimator."""
    end_user: str | None = None
    tags: tuple[str, ...] = ()
    service_tier: str | None = None
    """As requested; the one that was served counts where the answer names it."""
    bound: Bound | None = None
    """Under a strict budget: the most that it can use, which is charged where nobody says what it used."""
    reserved: tuple[Reserved, ...] = ()
    """What was reserved for it."""


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended, as far as the upstream's bytes don't tell."""

    outcome: Outcome
    status: int | None = None
    ttfb_ms: int | None = None
    duration_ms: int | None = None
    anomalies: tuple[str, ...] = ()
    """What was odd beside the usage."""


def conclude(attempt: Attempt, ending: Ending, observation: Observation | None) -> UsageEvent:
    """Make the event of an attempt; `observation` is `None` where no response came."""
    source, usage = _usage(attempt, ending, observation)
    seen = _NOTHING_SEEN if observation is None else observation
    cost, bound = seen.upstream_cost, attempt.bound
    return UsageEvent(
        event_id=attempt.event_id,
        started_at=attempt.started_at,
        team_id=attempt.team_id,
        key_id=attempt.key_id,
        route=attempt.route,
        upstream=attempt.upstream,
        model_requested=attempt.model,
        stream=attempt.stream,
        outcome=ending.outcome,
        usage_source=source,
        status=ending.status,
        model_served=seen.model,
        # An answer that is whole and names no tier was served in the standard one.
        service_tier=seen.service_tier or (None if ending.outcome is Outcome.OK else attempt.service_tier),
        upstream_id=seen.upstream_id,
        finish_reasons=seen.finish_reasons,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        usage_raw=seen.usage_raw,
        anomalies=(*seen.anomalies, *ending.anomalies),
        # Without usage there is nothing to pay for; with usage, and no price yet, the cost is unknown.
        cost=0 if source is UsageSource.NONE else None,
        upstream_cost=None if cost is None else round_usd(cost),
        upstream_cost_source=seen.upstream_cost_source,
        ttfb_ms=ending.ttfb_ms,
        duration_ms=ending.duration_ms,
        end_user=attempt.end_user,
        tags=attempt.tags,
        cost_bound=None if bound is None else bound.cost,
        reserved=attempt.reserved,
    )


def interrupted(attempt: Attempt, emitted_tokens: int) -> UsageEvent:
    """Make the event of an attempt whose process died after so many tokens had been emitted."""
    observation = Observation(emitted_tokens=emitted_tokens)
    return conclude(attempt, Ending(outcome=Outcome.INTERRUPTED), observation)


def _usage(
    attempt: Attempt, ending: Ending, observation: Observation | None
) -> tuple[UsageSource, TokenUsage]:
    if ending.outcome is Outcome.UNREACHABLE:
        return UsageSource.NONE, _NOTHING_USED
    if observation is None:
        return UsageSource.ESTIMATED, _estimate(attempt, 0)
    usage = observation.usage
    if usage is None or not observation.usable or not _chargeable(usage):
        return _without_usage(attempt, ending, observation)
    if ending.outcome is not Outcome.OK and not usage.total_tokens:
        # What was cut before it said more than zeros has not reported yet.
        return _without_usage(attempt, ending, observation)
    if ending.outcome is not Outcome.OK and observation.emitted_since_usage:
        # The usage was a running count, and more was emitted after it.
        emitted = usage.completion_tokens + observation.emitted_since_usage
        return UsageSource.ESTIMATED, _bounded(
            attempt, msgspec.structs.replace(usage, completion_tokens=emitted)
        )
    return UsageSource.REPORTED, usage


def _chargeable(usage: TokenUsage) -> bool:
    return (
        usage.prompt_tokens <= TOKENS_CHARGED_MAX
        and usage.completion_tokens <= TOKENS_CHARGED_MAX
        and usage.cache_write_tokens <= TOKENS_CHARGED_MAX
    )


def _without_usage(
    attempt: Attempt, ending: Ending, observation: Observation
) -> tuple[UsageSource, TokenUsage]:
    if ending.outcome is Outcome.UPSTREAM_ERROR:
        return UsageSource.NONE, _NOTHING_USED
    invalid = observation.reported is not None
    source = UsageSource.INVALID if invalid else UsageSource.ESTIMATED
    return source, _estimate(attempt, observation.emitted_tokens)


def _estimate(attempt: Attempt, emitted_tokens: int) -> TokenUsage:
    estimate = TokenUsage(prompt_tokens=attempt.prompt_estimate, completion_tokens=emitted_tokens)
    return _bounded(attempt, estimate)


def _bounded(attempt: Attempt, estimate: TokenUsage) -> TokenUsage:
    """Put what a strict budget has reserved in the place of an estimate, which could be too low."""
    bound = attempt.bound
    if bound is None:
        return estimate
    prompt = max(bound.prompt_tokens, estimate.prompt_tokens)
    completion = max(bound.completion_tokens, estimate.completion_tokens)
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion)
