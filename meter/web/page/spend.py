"""The page itself: what was spent, by whom, on what, and how that stands against the budgets."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency

from meter.core.access import Asker, Scope
from meter.core.budgets import Standing
from meter.core.comparison import before, compare
from meter.core.explain import Explanation
from meter.core.key_table import key_table
from meter.core.period import zone
from meter.core.prospects import Prospect, prospect
from meter.core.refusals import RefusalRow
from meter.core.reports import Question, Report
from meter.core.rollup import SIZES
from meter.core.series import Rest, Series, largest, series
from meter.core.series import total as total_of
from meter.core.views import MEASURES, PERIODS, STACKS, UNITS, View, asked, query, read, stack_of, unit_of
from meter.late import Late
from meter.web.access import FOR_VISITORS, visitor_of
from meter.web.page import tables, words
from meter.web.page.faults import FAULTS
from meter.web.page.forms import START, AnyRequest
from meter.web.page.rendering import page
from meter.web.reports import Reports
from meter.web.sessions import Sessions

if TYPE_CHECKING:
    from meter.web.page import charts
else:
    charts = Late("meter.web.page.charts")

REFUSALS_SHOWN = 8
BUDGETS_SHOWN = 6
_BY_KEY = ("team", "key")
_UNCHANGED = msgspec.structs.asdict(View())
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Insight:
    """What the page asks beside reports and events."""

    now: Callable[[], datetime]
    standings: Callable[[Scope], list[Standing]]
    explain: Callable[[str], Explanation]


class SpendController(Controller):
    """Shows the page."""

    include_in_schema = False
    exception_handlers = FAULTS
    opt = FOR_VISITORS

    @get(START, sync_to_thread=True)
    def show(
        self,
        request: AnyRequest,
        asker: NamedDependency[Asker],
        reports: NamedDependency[Reports],
        insight: NamedDependency[Insight],
        sessions: NamedDependency[Sessions],
    ) -> Response[str]:
        """Answer what the address asks for."""
        view = read(request.query_params)
        now = insight.now()
        question = reports.ask(asker.scope, asked(view, now))
        context = frame(request, asker, sessions, view) | bounds(view, question)
        context |= _spend(view, question, reports)
        context |= _refusals(reports.refusals(question))
        context |= _budgets([prospect(each, now) for each in insight.standings(asker.scope)])
        return page("spend.html", context)


def frame(request: AnyRequest, asker: Asker, sessions: Sessions, view: View) -> dict[str, Any]:
    """Return what every page has around it."""
    return {
        "asker": asker,
        "form": sessions.form_token(visitor_of(request).session_id),
        "view": view,
        "here": request.scope["path"],
        "link": partial(_link, START, view),
        "events_link": partial(_link, f"{START}/events", view),
        "fields": partial(_fields, view),
        "periods": PERIODS,
        "day": words.day,
        "time": partial(words.time_of, tz=zone(view.tz)),
        "filters": {
            name: getattr(view, name) for name in ("team", "key", "model", "upstream") if getattr(view, name)
        },
    }


def bounds(view: View, question: Question) -> dict[str, Any]:
    """Return the time that is shown, as people read it."""
    tz = zone(view.tz)
    last = question.until if question.to_date else question.until - _INSTANT
    return {
        "first_day": words.day_of(question.since, tz),
        "last_day": words.day_of(max(last, question.since), tz),
        "since": question.since.astimezone(tz).date().isoformat(),
        "until": "" if question.to_date else question.until.astimezone(tz).date().isoformat(),
        "command": tables.command(view, question),
    }


def _spend(view: View, question: Question, reports: Reports) -> dict[str, Any]:
    unit, stack = unit_of(view, question), stack_of(view, question)
    by_key = msgspec.structs.replace(question, by=_BY_KEY)
    keys = reports.answer(by_key)
    compared = compare(keys, reports.answer(_sizes(before(by_key))))
    total, was = compared.total
    found = _over_time(view, question, reports, keys)
    return {
        "total": total,
        "was": was,
        "change": words.change(total.cost, was.cost),
        "unit": unit,
        "stack": stack,
        "units": UNITS,
        "stacks": STACKS,
        "measures": MEASURES,
        "series": found,
        "chart": charts.chart(
            found, unit, view.measure, f"{words.MEASURES[view.measure]} by {unit}, stacked by {stack}"
        ),
        "period_names": [words.period_name(each, unit, found.periods) for each in found.periods],
        "chart_total": total_of(each.total for each in found.series),
        "kinds": tables.kinds(total),
        "table": key_table(compared, view),
        "key_name": next((row.group["key"] for row, _ in compared.rows if view.key), view.key),
        "all_keys": len(compared.rows),
        "largest": max((row.sums.cost for row, _ in compared.rows), default=0),
    }


def _over_time(view: View, question: Question, reports: Reports, keys: Report) -> Series:
    unit, stack = unit_of(view, question), stack_of(view, question)
    grouped = _sizes(msgspec.structs.replace(question, by=(unit, stack)))
    chosen = largest(keys, view.measure) if stack == "key" else None
    if chosen is None:
        return series(reports.answer(grouped), unit, stack, view.measure)
    # There may be hundreds of keys, of which a chart tells a few apart.
    report = reports.answer(msgspec.structs.replace(grouped, key_ids=tuple(chosen)))
    whole = reports.answer(msgspec.structs.replace(grouped, by=(unit,)))
    return series(report, unit, stack, view.measure, Rest(whole, len(keys.rows) - len(chosen)))


def _sizes(question: Question) -> Question:
    """Ask for what a chart draws and a comparison shows, and for nothing else."""
    return msgspec.structs.replace(question, sums=SIZES)


def _refusals(rows: list[RefusalRow]) -> dict[str, Any]:
    return {
        "refusals": rows[:REFUSALS_SHOWN],
        "refusals_hidden": len(rows) - len(rows[:REFUSALS_SHOWN]),
        "refused": sum(row.count for row in rows),
    }


def _budgets(found: list[Prospect]) -> dict[str, Any]:
    nearest = sorted(found, key=lambda each: -each.percent)
    return {"budgets": nearest[:BUDGETS_SHOWN], "other_budgets": nearest[BUDGETS_SHOWN:]}


def _link(path: str, view: View, **changes: object) -> str:
    # A page of a table is no longer what it was when anything else changes.
    asked_for = query(view, **{"page": 1} | changes)
    return f"{path}?{asked_for}" if asked_for else path


def _fields(view: View, *without: str) -> list[tuple[str, str]]:
    """Return what a form carries along of a view, but for what it asks for itself."""
    return parse_qsl(query(view, **{name: _UNCHANGED[name] for name in ("page", *without)}))
