"""Single requests: a list of them, and one explained."""

from typing import Any
from urllib.parse import urlencode

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from meter.core.access import Asker
from meter.core.cursors import decode, encode
from meter.core.events import Listed, Outcome, Place, Wanted
from meter.core.reports import Question
from meter.core.views import View, asked, query, read
from meter.web.access import FOR_VISITORS
from meter.web.events import Events, shown
from meter.web.page import words
from meter.web.page.faults import FAULTS
from meter.web.page.forms import START, AnyRequest
from meter.web.page.rendering import page
from meter.web.page.spend import Insight, bounds, frame
from meter.web.reports import Reports
from meter.web.sessions import Sessions

EVENTS = f"{START}/events"
ROWS = 50


class EventPagesController(Controller):
    """Shows requests."""

    include_in_schema = False
    exception_handlers = FAULTS
    opt = FOR_VISITORS

    @get(EVENTS, sync_to_thread=True)
    def show_list(
        self,
        request: AnyRequest,
        asker: NamedDependency[Asker],
        reports: NamedDependency[Reports],
        events: NamedDependency[Events],
        insight: NamedDependency[Insight],
        sessions: NamedDependency[Sessions],
    ) -> Response[str]:
        """List the newest of the requests that the address asks for."""
        view = read(request.query_params)
        outcome = _outcome(request.query_params.get("outcome", ""))
        cursor = request.query_params.get("cursor", "")
        question = reports.ask(asker.scope, asked(view, insight.now()))
        found, following = events.page(_wanted(view, question, outcome, cursor), asker.scope, ROWS)
        context = frame(request, asker, sessions, view) | bounds(view, question)
        context |= {
            "link": context["events_link"],
            "spend_link": context["link"],
            "rows": [_row(each) for each in found],
            "key_name": next((each.key for each in found if view.key), view.key),
            "outcome": outcome or "",
            "outcomes": words.OUTCOMES,
            "is_first": not cursor,
            "following": following and _address(view, outcome, encode(following)),
            "newest": _address(view, outcome, ""),
        }
        return page("events.html", context)

    @get(f"{EVENTS}/{{event_id:str}}", sync_to_thread=True)
    def show(
        self,
        request: AnyRequest,
        event_id: FromPath[str],
        asker: NamedDependency[Asker],
        events: NamedDependency[Events],
        insight: NamedDependency[Insight],
        sessions: NamedDependency[Sessions],
    ) -> Response[str]:
        """Explain what one request cost; another team's does not exist."""
        view = read(request.query_params)
        events.find(event_id, asker.scope)
        context = frame(request, asker, sessions, view)
        return page("event.html", context | {"event": insight.explain(event_id), "outcomes": words.OUTCOMES})


def _outcome(text: str) -> Outcome | None:
    if not text:
        return None
    if text not in words.OUTCOMES:
        raise ValueError(f"'outcome' must be one of {', '.join(words.OUTCOMES)}")
    return Outcome(text)


def _wanted(view: View, question: Question, outcome: Outcome | None, cursor: str) -> Wanted:
    if set(view.model) & set("*?"):
        raise ValueError("requests are listed by one whole name of a model: leave '*' and '?' out of it")
    return Wanted(
        team=view.team or None,
        key=view.key or None,
        model=view.model or None,
        upstream=view.upstream or None,
        outcome=outcome,
        since=question.since,
        until=question.until,
        before=decode(cursor, Place) if cursor else None,
    )


def _row(listed: Listed) -> dict[str, Any]:
    return {"event": shown(listed), "failed": listed.event.failed, "model": listed.event.model}


def _address(view: View, outcome: Outcome | None, cursor: str) -> str:
    more = urlencode({name: value for name, value in (("outcome", outcome), ("cursor", cursor)) if value})
    asked_for = "&".join(filter(None, (query(view), more)))
    return f"{EVENTS}?{asked_for}" if asked_for else EVENTS
