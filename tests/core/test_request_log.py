"""What a request's line says: what it was and what it cost, and nothing that was said in it."""

import msgspec

from meter.core.errors import InvalidKey
from meter.core.keys import Grant
from meter.core.request_log import of_event, of_refusal
from tests.core.test_rollup import make

# What clients write themselves, and what may hold what they wrote.
SILENT = {"end_user", "tags", "usage_raw", "finish_reasons", "anomalies"}


def test_a_line_of_a_request() -> None:
    """Ids, models, tokens, cost, times and the outcome are there; an unknown cost is none, and not 0."""
    event = msgspec.structs.replace(
        make(cost=1_234_000_000, prompt_tokens=10, ttfb_ms=12, duration_ms=34),
        end_user="somebody",
        tags=("t",),
    )

    fields = of_event(event, "search")

    assert fields["event_id"] == event.event_id
    assert (fields["team"], fields["team_id"], fields["key_id"]) == ("search", event.team_id, event.key_id)
    assert (fields["cost_usd"], fields["prompt_tokens"]) == ("0.001234", 10)
    assert (fields["outcome"], fields["ttfb_ms"], fields["duration_ms"]) == (str(event.outcome), 12, 34)
    assert not fields.keys() & SILENT
    assert "somebody" not in str(fields)
    assert of_event(msgspec.structs.replace(event, cost=None), "search")["cost_usd"] is None


def test_a_line_of_a_refusal() -> None:
    """A refusal says which, and whose key it was where that was right."""
    grant = Grant("key-id", "nightly", "team-id", "search")
    known = of_refusal(InvalidKey(), grant)

    assert (known["key_id"], known["team_id"], known["team"]) == ("key-id", "team-id", "search")
    assert of_refusal(InvalidKey(), None) == {
        "status": 401,
        "code": "invalid_api_key",
        "team": None,
        "team_id": None,
        "key_id": None,
    }
