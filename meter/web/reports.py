"""Reports over HTTP: the same questions as on the command line, and the same numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from meter.core.access import Asker, Scope
from meter.core.comparison import Compared, before, compare, compared_json
from meter.core.refusals import RefusalRow, refusals_json
from meter.core.reports import BY, TOP, Asked, Question, Report, as_json
from meter.web.access import FOR_TEAMS

# The charset comes with it, as of all text.
CSV = "text/csv"


@dataclass(frozen=True)
class Reports:
    """What this controller works with."""

    ask: Callable[[Scope, Asked], Question]
    answer: Callable[[Question], Report]
    refusals: Callable[[Question], list[RefusalRow]]
    report_csv: Callable[[Question], Iterator[str]]
    compared_csv: Callable[[Compared], Iterator[str]]
    focus_csv: Callable[[Question], Iterator[str]]
    refusals_csv: Callable[[list[RefusalRow]], Iterator[str]]


class ReportController(Controller):
    """Ask what was spent."""

    path = "/api/v1/reports"
    tags = ("reports",)

    @get(sync_to_thread=True, opt=FOR_TEAMS, summary="Ask for a report")
    def report(  # noqa: PLR0913, PLR0917 (a parameter each)
        self,
        reports: NamedDependency[Reports],
        asker: NamedDependency[Asker],
        by: FromQuery[str | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        tz: FromQuery[str] = "UTC",
        team: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        model: FromQuery[str | None] = None,
        upstream: FromQuery[str | None] = None,
        top: FromQuery[int] = TOP,
        compare: FromQuery[bool] = False,  # noqa: FBT002 (a flag of the query)
        format: FromQuery[Literal["json", "csv", "focus"]] = "json",  # noqa: A002 (the parameter's name)
    ) -> Response[Any]:
        """Return sums by group, with their total; a team's viewer sees its own.

        It is the question of `meter report`, with the same names and defaults. `format=csv` has no total;
        `format=focus` is FOCUS, by day in UTC, and is not grouped otherwise.
        """
        asked = Asked(
            by=BY if by is None else by,
            since=since,
            until=until,
            tz=tz,
            team=team,
            key=key,
            upstream=upstream,
            model=model,
            top=top,
        )
        question = reports.ask(asker.scope, asked)
        if format == "focus":
            if compare or by is not None:
                raise ValueError("a FOCUS export has rows of its own: leave 'by' and 'compare' out")
            return Stream(reports.focus_csv(question), media_type=CSV)
        return _compared(reports, question, format) if compare else _single(reports, question, format)

    @get("/refusals", sync_to_thread=True, opt=FOR_TEAMS, summary="Ask what was refused")
    def refusals(  # noqa: PLR0913, PLR0917 (a parameter each)
        self,
        reports: NamedDependency[Reports],
        asker: NamedDependency[Asker],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        tz: FromQuery[str] = "UTC",
        team: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        format: FromQuery[Literal["json", "csv"]] = "json",  # noqa: A002 (the parameter's name)
    ) -> Response[Any]:
        """Return how often meter refused requests of each key by itself, and why; by whole hours in UTC."""
        asked = Asked(since=since, until=until, tz=tz, team=team, key=key)
        found = reports.refusals(reports.ask(asker.scope, asked))
        if format == "csv":
            return Stream(reports.refusals_csv(found), media_type=CSV)
        return Response(refusals_json(found))


def _single(reports: Reports, question: Question, shape: str) -> Response[Any]:
    if shape == "csv":
        return Stream(reports.report_csv(question), media_type=CSV)
    return Response(as_json(reports.answer(question)))


def _compared(reports: Reports, question: Question, shape: str) -> Response[Any]:
    found = compare(reports.answer(question), reports.answer(before(question)))
    if shape == "csv":
        return Stream(reports.compared_csv(found), media_type=CSV)
    return Response(compared_json(found))
