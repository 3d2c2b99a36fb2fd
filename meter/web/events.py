"""Events over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from meter.core.access import Asker, Scope
from meter.core.cursors import decode, encode
from meter.core.events import Listed, Outcome, Place, UsageEvent, UsageSource, Wanted
from meter.core.money import Picodollars, format_usd
from meter.core.period import parse_instant
from meter.web.access import FOR_TEAMS

PAGE_DEFAULT = 100
PAGE_MAX = 500


class Event(msgspec.Struct, kw_only=True):
    """An attempt at an upstream, or a correction of one's cost. Amounts are decimal strings in USD."""

    event_id: str
    started_at: datetime
    team: str
    team_id: str
    key: str
    key_id: str
    route: str
    upstream: str
    upstream_id: str | None
    model_requested: str
    model_served: str | None
    service_tier: str | None
    stream: bool
    outcome: Outcome
    status: int | None
    finish_reasons: tuple[str, ...]
    usage_source: UsageSource
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    total_tokens: int
    usage_raw: str | None
    anomalies: tuple[str, ...]
    cost_usd: str | None
    """Null is unpriced, 0 is free."""
    price_id: int | None
    upstream_cost_usd: str | None
    upstream_cost_source: str | None
    ttfb_ms: int | None
    duration_ms: int | None
    end_user: str | None
    tags: tuple[str, ...]
    corrects_id: str | None
    """Of a correction: the event whose cost it changes, by its own cost, which may be negative."""
    counted_at: datetime | None
    actor: str | None
    reason: str | None


class EventWithCorrections(Event, kw_only=True):
    """An event, and what was corrected of its cost later."""

    corrections: list[Event]


class EventPage(msgspec.Struct):
    """Events, newest first."""

    data: list[Event]
    next_cursor: str | None
    """Where the next page begins; null is the end. A page of what is seldom may end early, or be empty."""


@dataclass(frozen=True)
class Events:
    """What this controller works with."""

    find: Callable[[str, Scope], list[Listed]]
    page: Callable[[Wanted, Scope, int], tuple[list[Listed], Place | None]]


class EventController(Controller):
    """Look at single events."""

    path = "/api/v1/events"
    tags = ("events",)
    opt = FOR_TEAMS

    @get(sync_to_thread=True, summary="List events")
    def page(  # noqa: PLR0913 (a filter is an argument)
        self,
        events: NamedDependency[Events],
        asker: NamedDependency[Asker],
        *,
        team: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        model: FromQuery[str | None] = None,
        upstream: FromQuery[str | None] = None,
        outcome: FromQuery[Outcome | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        cursor: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT,
    ) -> EventPage:
        """List events, newest first; a team's viewer sees those of its team.

        `since` is inclusive and `until` exclusive: `2026-11-23`, or an RFC 3339 time; without an offset, UTC.
        A name of a key means all keys of that name, as keys that took over from each other have it.
        """
        wanted = Wanted(
            team=team,
            key=key,
            model=model,
            upstream=upstream,
            outcome=outcome,
            since=None if since is None else parse_instant(since, UTC),
            until=None if until is None else parse_instant(until, UTC),
            before=None if cursor is None else decode(cursor, Place),
        )
        found, following = events.page(wanted, asker.scope, limit)
        return EventPage([shown(each) for each in found], None if following is None else encode(following))

    @get("/{event_id:str}", sync_to_thread=True, summary="Show an event")
    def show(
        self, event_id: FromPath[str], events: NamedDependency[Events], asker: NamedDependency[Asker]
    ) -> EventWithCorrections:
        """Show an event, by the `x-meter-request-id` of its response, with the corrections of its cost."""
        event, *corrections = map(shown, events.find(event_id, asker.scope))
        return EventWithCorrections(**msgspec.structs.asdict(event), corrections=corrections)


def shown(listed: Listed) -> Event:
    """Show an event as the API does."""
    event = listed.event
    same = {name: getattr(event, name) for name in Event.__struct_fields__ if hasattr(UsageEvent, name)}
    amounts: dict[str, Any] = {"cost_usd": _usd(event.cost), "upstream_cost_usd": _usd(event.upstream_cost)}
    return Event(**same, **amounts, team=listed.team, key=listed.key)


def _usd(amount: int | None) -> str | None:
    return None if amount is None else format_usd(Picodollars(amount))
