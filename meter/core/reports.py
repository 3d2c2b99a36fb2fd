"""Questions about spend, and their answers.

A report sums what the ledger holds in `[since, until)`. Its total is asked for by itself, because rows may
overlap: an event with two tags stands in both of their rows.
"""

from datetime import datetime, timedelta, tzinfo
from math import inf
from typing import Any

import msgspec

from meter.core.money import Picodollars, format_usd
from meter.core.period import Unit, bucket, month_start, parse_instant, zone
from meter.core.rollup import COUNTS, Sums

TIME_GROUPS: tuple[Unit, ...] = ("hour", "day", "week", "month")
# These are in the rollup; the others need the ledger itself.
ROLLUP_GROUPS = ("team", "key", "model", "upstream", *TIME_GROUPS)
LEDGER_GROUPS = ("user", "tag")
GROUPS = (*ROLLUP_GROUPS, *LEDGER_GROUPS)
BY = "team,key,model"
# There may be an end user to each request; the others stand in one row together.
TOP = 100
TOP_MAX = 10_000
# Longer than any ledger.
DAYS_MAX = 1_000_000


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to sum, by what, from when to when."""

    by: tuple[str, ...]
    since: datetime
    until: datetime
    tz: tzinfo
    scope_team_id: str | None = None
    """The one team that whoever asks may see; `None` is all of them."""
    team_id: str | None = None
    key_ids: tuple[str, ...] | None = None
    upstream: str | None = None
    model: str | None = None
    """A pattern, in which `*` stands for anything and `?` for one character."""
    top: int = TOP
    """How many end users, and tags, have rows of their own."""
    to_date: bool = False
    """Whether it ends now, and not at a bound that somebody gave."""
    sums: tuple[str, ...] = COUNTS
    """Which sums are asked for; in the answer the others are 0."""


class Row(msgspec.Struct, frozen=True):
    """One row: the values it stands for, and its sums."""

    group: dict[str, str]
    """A value for each of the question's groups; beside `key`, the key's name, stands `key_id`."""
    sums: Sums


class Report(msgspec.Struct, frozen=True):
    """The answer to a question."""

    question: Question
    rows: list[Row]
    total: Sums


# The columns of every output, in order.
COLUMNS = (
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "total_tokens",
    "cost_usd",
    "upstream_cost_usd",
    "drift_usd",
    "unpriced_requests",
    "unpriced_tokens",
    "estimated_requests",
    "estimated_tokens",
    "invalid_requests",
    "invalid_tokens",
    "corrections",
    "correction_cost_usd",
)


def columns(sums: Sums) -> dict[str, Any]:
    """Return a row's sums as they are shown: counts, and amounts as decimal strings in USD."""
    amounts = {
        "cost_usd": cost_usd(sums),
        "upstream_cost_usd": _usd(sums.upstream_cost),
        "drift_usd": _usd(sums.compared_upstream_cost - sums.compared_cost),
        "correction_cost_usd": _usd(sums.correction_cost),
    }
    return {name: amounts[name] if name in amounts else getattr(sums, name) for name in COLUMNS}


def cost_usd(sums: Sums) -> str | None:
    """Return the cost as a decimal string; `None` where nothing of it has a price."""
    if sums.requests and sums.unpriced_requests == sums.requests and not sums.cost:
        return None
    return _usd(sums.cost)


def estimated_share(sums: Sums) -> float:
    """Return the part of the tokens that no upstream reported, 0 to 1."""
    unreported = sums.estimated_tokens + sums.invalid_tokens
    return unreported / sums.total_tokens if sums.total_tokens else 0.0


def _usd(amount: int) -> str:
    return format_usd(Picodollars(amount))


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as the JSON document that the command line and the API give."""
    rows = [row.group | columns(row.sums) for row in report.rows]
    return {"rows": rows, "total": columns(report.total)}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question as somebody writes it."""

    by: str = BY
    since: str | None = None
    until: str | None = None
    tz: str = "UTC"
    team: str | None = None
    """By name or id, and so are keys; more than one key may have the name."""
    key: str | None = None
    upstream: str | None = None
    model: str | None = None
    top: int = TOP


def question(asked: Asked, now: datetime, ledger_days_max: float = inf) -> Question:
    """Read a question; without bounds it is about the month to date. Raises `ValueError`.

    Teams and keys are found by whoever knows their names.
    """
    tz = zone(asked.tz)
    since = month_start(now, tz) if asked.since is None else _quarter(asked.since, tz)
    until = now if asked.until is None else _quarter(asked.until, tz)
    if since > until or (since == until and asked.until is not None):
        raise ValueError("the report ends before it begins: 'since' must be earlier than 'until'")
    by = parse_groups(asked.by)
    if set(by) & set(LEDGER_GROUPS) and until - since > timedelta(days=1) * min(ledger_days_max, DAYS_MAX):
        raise ValueError(
            f"reports by user or tag read the ledger and span at most {ledger_days_max:g} days "
            "(the setting report_ledger_days_max): set 'since' and 'until' closer together"
        )
    if not 1 <= asked.top <= TOP_MAX:
        raise ValueError(f"'top' must be from 1 to {TOP_MAX}")
    return Question(
        by=by,
        since=since,
        until=until,
        tz=tz,
        upstream=asked.upstream,
        model=asked.model,
        top=asked.top,
        to_date=asked.until is None,
    )


def group_columns(question: Question) -> list[str]:
    """Name the columns of a question's groups; beside `key`, a name that may repeat, stands `key_id`."""
    return [name for group in question.by for name in ((group, "key_id") if group == "key" else (group,))]


def _quarter(text: str, tz: tzinfo) -> datetime:
    instant = parse_instant(text, tz)
    if instant != bucket(instant):
        raise ValueError(f"reports count in quarter hours: {text!r} is none")
    return instant


def parse_groups(text: str) -> tuple[str, ...]:
    """Read `team,key,model`; raises `ValueError` naming what is unknown."""
    groups = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise ValueError(f"cannot group by {', '.join(unknown)}; there is: {', '.join(GROUPS)}")
    if len(set(groups)) < len(groups):
        raise ValueError("name each group once")
    return groups
