"""What the spend page shows, as its address says it, so that an address can be handed on.

A view is a question as people choose it: a period by name rather than two dates, what the chart is stacked
by, and how the table of keys is sorted and filtered.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec

from meter.core.period import Unit, zone
from meter.core.reports import Asked, Question

PERIODS = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last-month": "Last month",
    "12m": "12 months",
}
CUSTOM = "custom"
UNITS: tuple[Unit, ...] = ("hour", "day", "week", "month")
STACKS = ("team", "model", "key", "upstream")
MEASURES = ("cost", "tokens", "requests")
SORTS = ("key", "team", "requests", "errors", "tokens", "estimated", "cost", "before", "change")
# More bars than this are thinner than a pixel on a phone.
BARS_MAX = 200
TEXT_LENGTH_MAX = 300
PAGE_MAX = 10_000

_LENGTHS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=28),
}
_UP_TO: tuple[tuple[Unit, timedelta], ...] = (
    ("hour", timedelta(days=2)),
    ("day", timedelta(days=93)),
    ("week", timedelta(days=200)),
)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown. An empty text is what the page chooses by itself."""

    period: str = "month"
    since: str = ""
    """Of a custom period; exclusive `until`, as in reports."""
    until: str = ""
    tz: str = "UTC"
    unit: str = ""
    stack: str = ""
    measure: str = "cost"
    team: str = ""
    key: str = ""
    model: str = ""
    upstream: str = ""
    find: str = ""
    """What the names of keys in the table contain."""
    sort: str = "-cost"
    """A column of the table, with a minus the largest first."""
    page: int = 1
    """Of the table."""


_FIELDS = View.__struct_fields__
_DEFAULTS = msgspec.structs.asdict(View())
_CHOICES = {
    "period": (*PERIODS, CUSTOM),
    "unit": ("", *UNITS),
    "stack": ("", *STACKS),
    "measure": MEASURES,
    "sort": tuple(f"{sign}{name}" for name in SORTS for sign in ("", "-")),
}


def read(given: Mapping[str, str]) -> View:
    """Read a view from the parameters of an address; raises `ValueError` naming the one that is wrong."""
    known: dict[str, Any] = {name: given[name].strip() for name in _FIELDS if given.get(name, "").strip()}
    for name, value in known.items():
        if len(value) > TEXT_LENGTH_MAX:
            raise ValueError(f"'{name}' is too long: it has at most {TEXT_LENGTH_MAX} characters")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"'{name}' must be one of {', '.join(filter(None, _CHOICES[name]))}")
    if "page" in known:
        known["page"] = _page(known["page"])
    if "since" in known or "until" in known:
        known["period"] = CUSTOM
    elif known.get("period") == CUSTOM:
        del known["period"]
    zone(known.get("tz", "UTC"))
    return View(**known)


def query(view: View, **changes: object) -> str:
    """Write a view down as the query of an address, with changes; what is as usual is left out."""
    changed = msgspec.structs.asdict(view) | changes
    if changed["period"] != CUSTOM:
        changed["since"] = changed["until"] = ""
    return urlencode({name: value for name, value in changed.items() if value != _DEFAULTS[name]})


def asked(view: View, now: datetime) -> Asked:
    """Return the question of a view, not yet grouped."""
    since, until = _bounds(view, now)
    return Asked(
        by="",
        since=since,
        until=until,
        tz=view.tz,
        team=view.team or None,
        key=view.key or None,
        model=view.model or None,
        upstream=view.upstream or None,
    )


def unit_of(view: View, question: Question) -> Unit:
    """Return the length of a bar; raises `ValueError` where there would be too many."""
    length = question.until - question.since
    for unit in UNITS:
        if unit == view.unit and length <= BARS_MAX * _LENGTHS[unit]:
            return unit
    if view.unit:
        raise ValueError(f"the period is too long to show it by {view.unit}: choose a longer unit")
    return next((unit for unit, up_to in _UP_TO if length <= up_to), "month")


def stack_of(view: View, question: Question) -> str:
    """Return what the bars are made of: teams, unless there is only one to see."""
    single = question.scope_team_id is not None or question.team_id is not None
    return view.stack or ("model" if single else "team")


def _page(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= PAGE_MAX):
        raise ValueError(f"'page' must be a number from 1 to {PAGE_MAX}")
    return int(text)


def _bounds(view: View, now: datetime) -> tuple[str | None, str | None]:
    if view.period == CUSTOM:
        return view.since or None, view.until or None
    today = now.astimezone(zone(view.tz)).date()
    month = today.replace(day=1)
    last_month = (month - timedelta(days=1)).replace(day=1)
    bounds: dict[str, tuple[date | None, date | None]] = {
        "today": (today, None),
        "7d": (today - timedelta(days=6), None),
        "30d": (today - timedelta(days=29), None),
        # As a report without bounds.
        "month": (None, None),
        "last-month": (last_month, month),
        "12m": (_months_before(month, 11), None),
    }
    since, until = bounds[view.period]
    return _written(since), _written(until)


def _written(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _months_before(month: date, count: int) -> date:
    number = month.year * 12 + month.month - 1 - count
    return date(number // 12, number % 12 + 1, 1)
