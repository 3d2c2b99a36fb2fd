"""A month of use that nobody had: what `meter demo` shows. The same randomness makes the same month.

Keys have habits, as in companies: programs that people use in the office, batches by night, experiments on
some days. A few requests fail, a few clients leave, and one provider's usage is estimated.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

import msgspec

from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7

SONNET, GEMINI, GPT = "anthropic/claude-sonnet-4", "google/gemini-2.5-pro", "openai/gpt-4.1"
HOUSE_MODEL = "acme/house-model"
"""Has no price until somebody gives it one."""
EXPERIMENT = "acme/experiment"
"""Has none at all."""
DAYS = 30

_HOUR = timedelta(hours=1)
_SATURDAY = 5
_WEEKEND_SHARE = 0.15
_OFFICE = (0, 0, 0, 0, 0, 0, 1, 3, 7, 10, 11, 10, 6, 9, 11, 10, 8, 5, 3, 2, 1, 1, 0, 0)
_NIGHT = (2, 9, 10, 10, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
_FAILED_SHARE, _LEFT_SHARE, _CUT_SHARE = 0.015, 0.01, 0.003
# Something of a prompt is always new.
_CACHED_MAX = 0.95
_STATUSES = (429, 500, 503)


class Habit(NamedTuple):
    """How a key is used."""

    team: str
    key: str
    models: tuple[str, ...]
    """One of them is drawn; a name may stand here more than once."""
    per_day: int
    prompt_tokens: int
    completion_tokens: int
    cached_share: float
    reasoning_share: float
    hours: tuple[int, ...]
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    stream: bool = True
    tags: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    estimated_share: float = 0.0


HABITS = (
    Habit(
        "support", "chat-assistant", (SONNET, SONNET, SONNET, GPT), 110, 3_200, 350, 0.6, 0.0, _OFFICE,
        users=("ada", "grace", "linus", "margaret"),
    ),
    Habit("support", "ticket-triage", (GPT, HOUSE_MODEL), 45, 900, 60, 0.4, 0.0, _OFFICE, stream=False),
    Habit("search", "query-rewriter", (GPT,), 70, 420, 40, 0.5, 0.0, _OFFICE, estimated_share=0.08),
    Habit(
        "search", "nightly-batch", (GEMINI, GPT), 60, 9_000, 700, 0.2, 0.1, _NIGHT,
        stream=False, tags=("batch", "nightly"),
    ),
    Habit(
        "research", "notebooks", (GEMINI, SONNET), 25, 6_000, 1_800, 0.3, 0.5, _OFFICE,
        users=("emmy", "kurt"),
    ),
    Habit(
        "research", "evals", (SONNET, GEMINI, GPT, EXPERIMENT), 90, 2_400, 900, 0.1, 0.4, _OFFICE,
        weekdays=(1, 3), stream=False, tags=("evals",),
    ),
)  # fmt: skip


class Holder(NamedTuple):
    """Whose a key is, by ids."""

    team_id: str
    key_id: str


class Refusal(NamedTuple):
    """How often a key was refused in an hour, which begins then."""

    hour: datetime
    key: str
    reason: str
    times: int


def history(
    holders: Mapping[str, Holder], since: datetime, until: datetime, random: Random
) -> Iterator[UsageEvent]:
    """Yield events without costs, in the order of their hours; `holders` are by the names of keys."""
    hour = since
    while hour < until:
        for habit in HABITS:
            expected = _expected(habit, hour) * random.uniform(0.6, 1.4)
            for _ in range(int(expected + random.random())):
                event = _event(habit, holders[habit.key], hour, random)
                # What would begin later is drawn all the same, so that the past does not depend on now.
                if event.started_at < until:
                    yield event
        hour += _HOUR


def refusals(since: datetime, until: datetime, random: Random) -> list[Refusal]:
    """Return what was refused: a batch that hurries, experiments that ask for too much."""
    found = []
    for day in range((until - since).days):
        at = since + timedelta(days=day)
        if random.random() < 0.4:  # noqa: PLR2004 (a share of the days)
            found.append(
                Refusal(at + 2 * _HOUR, "nightly-batch", "rate_limit_exceeded", random.randint(3, 40))
            )
        if at.weekday() in (1, 3):
            found.append(Refusal(at + 15 * _HOUR, "evals", "insufficient_quota", random.randint(1, 25)))
        if random.random() < 0.1:  # noqa: PLR2004 (a share of the days)
            found.append(Refusal(at + 11 * _HOUR, "notebooks", "model_not_allowed", random.randint(1, 4)))
    return found


def _expected(habit: Habit, hour: datetime) -> float:
    if hour.weekday() not in habit.weekdays:
        return 0.0
    is_free = hour.weekday() >= _SATURDAY and habit.hours is _OFFICE
    return habit.per_day * habit.hours[hour.hour] / sum(habit.hours) * (_WEEKEND_SHARE if is_free else 1.0)


def _event(habit: Habit, holder: Holder, hour: datetime, random: Random) -> UsageEvent:
    started_at = hour + timedelta(milliseconds=random.randrange(3_600_000))
    model = random.choice(habit.models)
    event_id = uuid7(int(started_at.timestamp() * 1000), random.randbytes(10))
    prompt = int(habit.prompt_tokens * random.lognormvariate(0, 0.6)) + 1
    completion = int(habit.completion_tokens * random.lognormvariate(0, 0.7)) + 1
    event = UsageEvent(
        event_id=event_id,
        started_at=started_at,
        team_id=holder.team_id,
        key_id=holder.key_id,
        route="chat.completions",
        upstream="sample",
        upstream_id=f"chatcmpl-{event_id[-12:]}",
        model_requested=model,
        model_served=model,
        service_tier="default",
        stream=habit.stream,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        status=200,
        finish_reasons=("stop",),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=int(prompt * min(habit.cached_share * random.random() * 2, _CACHED_MAX)),
        reasoning_tokens=int(completion * habit.reasoning_share * random.random()),
        ttfb_ms=random.randint(180, 1_600),
        duration_ms=random.randint(1_700, 3_000) + 12 * completion,
        end_user=random.choice(habit.users) if habit.users else None,
        tags=habit.tags,
    )
    return _ended(event, habit, random.random(), random)


def _ended(event: UsageEvent, habit: Habit, drawn: float, random: Random) -> UsageEvent:
    """Let some events end otherwise than well."""
    status, estimated = random.choice(_STATUSES), random.random() < habit.estimated_share
    if drawn < _FAILED_SHARE:
        nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}
        return msgspec.structs.replace(
            event,
            outcome=Outcome.UPSTREAM_ERROR,
            usage_source=UsageSource.NONE,
            status=status,
            model_served=None,
            finish_reasons=(),
            **nothing,
        )
    unread = {"cached_tokens": 0, "reasoning_tokens": 0, "usage_source": UsageSource.ESTIMATED}
    if drawn < _FAILED_SHARE + _LEFT_SHARE and event.stream:
        return msgspec.structs.replace(event, outcome=Outcome.CLIENT_CLOSED, finish_reasons=(), **unread)
    if drawn < _FAILED_SHARE + _LEFT_SHARE + _CUT_SHARE:
        return msgspec.structs.replace(event, outcome=Outcome.UPSTREAM_CLOSED, finish_reasons=(), **unread)
    return msgspec.structs.replace(event, **unread) if estimated else event
