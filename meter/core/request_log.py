"""What the log says of a request: ids, numbers and how it ended; nothing that was said in it."""

from typing import Any

from meter.core.errors import MeterError
from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.core.money import Picodollars, format_usd


def of_event(event: UsageEvent, team: str) -> dict[str, Any]:
    """Return the fields of a request that went upstream."""
    return {
        "event_id": event.event_id,
        "started_at": event.started_at.isoformat(timespec="milliseconds"),
        "team": team,
        "team_id": event.team_id,
        "key_id": event.key_id,
        "route": event.route,
        "upstream": event.upstream,
        "upstream_id": event.upstream_id,
        "model_requested": event.model_requested,
        "model_served": event.model_served,
        "stream": event.stream,
        "outcome": str(event.outcome),
        "status": event.status,
        "usage_source": str(event.usage_source),
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "cached_tokens": event.cached_tokens,
        "cache_write_tokens": event.cache_write_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "cost_usd": None if event.cost is None else format_usd(Picodollars(event.cost)),
        "ttfb_ms": event.ttfb_ms,
        "duration_ms": event.duration_ms,
    }


def of_refusal(refusal: MeterError, grant: Grant | None) -> dict[str, Any]:
    """Return the fields of a request that meter refused; the key is known only where it was right."""
    return {
        "status": refusal.status,
        "code": refusal.code,
        "team": None if grant is None else grant.team_name,
        "team_id": None if grant is None else grant.team_id,
        "key_id": None if grant is None else grant.key_id,
    }
