"""Rates through the proxy: counted for key and team, refused in OpenAI's terms, seen by the holder."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import Meter

USAGE = b'{"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":60,"total_tokens":100}}'
THEIRS = [("Content-Type", "application/json"), ("x-ratelimit-limit-requests", "7")]


def make_key(meter: Meter, team: dict[str, object], own: dict[str, object]) -> str:
    """Make a key, and its team, with limits of their own."""
    name = f"team {uuid4()}"
    with meter.control as control:
        team_id = control.post("/api/v1/teams", json={"name": name}).json()["id"]
        key: str = control.post("/api/v1/keys", json={"team": name}).json()["key"]
        assert control.patch(f"/api/v1/teams/{team_id}", json=team).status_code == 200
        assert control.patch(f"/api/v1/keys/{key.split('_')[1]}", json=own).status_code == 200
    return key


def view(meter: Meter, key: str) -> Any:
    """Return the key holder's own view."""
    answer = wire.exchange(meter.url, wire.request("GET", "/v1/meter/key", key=key))
    assert answer.status == 200
    return answer.json()


@pytest.mark.parametrize("owner", ["key", "team"])
def test_requests_a_minute(owner: str, upstream: FakeUpstream, meter: Meter) -> None:
    """So many pass and the next is refused, upstream and ledger unaware; the headers say what is left."""
    upstream.answer([response(USAGE, headers=THEIRS)])
    limit: dict[str, object] = {"rpm": 3, "tpm": 1000}
    key = make_key(meter, limit if owner == "team" else {}, limit if owner == "key" else {})

    answers = [wire.post(meter.url, key, wire.chat()) for _ in range(5)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].header("x-ratelimit-limit-requests") == "7"
    refused = answers[-1]
    assert refused.error["code"] == refused.error["type"] == "rate_limit_exceeded"
    assert f"The limit of this {owner} is 3 requests a minute" in refused.error["message"]
    assert 50 < int(refused.header("retry-after") or 0) <= 60
    assert refused.header("x-ratelimit-limit-requests") == "3"
    assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert refused.header("x-ratelimit-reset-requests") in {"1m0s", *(f"{each}s" for each in range(50, 60))}
    assert refused.header("x-ratelimit-limit-tokens") == "1000"
    assert refused.header("x-ratelimit-remaining-tokens") == "700"
    assert len(upstream.received) == len(meter.events(key, 3)) == 3


def test_tokens_a_minute(upstream: FakeUpstream, meter: Meter) -> None:
    """A request counts by what it used once that is known, and one that is too large is told so."""
    upstream.answer([response(USAGE)])
    key = make_key(meter, {}, {"tpm": 150})

    passed = [wire.post(meter.url, key, wire.chat()).status for _ in range(2)]
    refused = wire.post(meter.url, key, wire.chat())
    large = wire.post(meter.url, key, wire.chat(messages=[{"role": "user", "content": "word " * 200}]))

    assert passed == [200, 200]
    assert (refused.status, large.status) == (429, 429)
    assert "150 tokens a minute; 200 are used" in refused.error["message"]
    assert "can never pass" in large.error["message"]
    assert large.header("x-should-retry") == "false"


def test_the_keys_of_a_team_share_its_rates(upstream: FakeUpstream, meter: Meter) -> None:
    """What one key of a team uses, another lacks; a key of another team does not."""
    upstream.answer([response(USAGE)])
    one = make_key(meter, {"rpm": 2}, {})
    with meter.control as control:
        keys = control.get("/api/v1/keys").json()["data"]
        team_id = next(each["team_id"] for each in keys if each["id"] == one.split("_")[1])
    two, other = meter.new_key(team_id), meter.new_key()

    statuses = [wire.post(meter.url, key, wire.chat()).status for key in (one, two, two, one, other)]

    assert statuses == [200, 200, 429, 429, 200]


def test_a_key_sees_what_it_may_do(upstream: FakeUpstream, meter: Meter) -> None:
    """The view has the closer of the key's and the team's limits; seeing it is no request upstream."""
    upstream.answer([response(USAGE)])
    key = make_key(meter, {"rpm": 2, "models": ["openai/*", "test-model"]}, {"rpm": 10, "tpm": 1000})
    before = view(meter, key)

    wire.post(meter.url, key, wire.chat())
    after = view(meter, key)

    assert set(before) == {"id", "name", "team", "expires_at", "models", "rates", "concurrency", "budgets"}
    assert before["id"] == key.split("_")[1]
    assert before["models"] == ["openai/*", "test-model"]
    assert before["budgets"] == []
    assert before["concurrency"] == {"limit": None, "running": 0, "owner": "key"}
    assert before["rates"]["requests"]["remaining"] == 2
    requests, tokens = after["rates"]["requests"], after["rates"]["tokens"]
    assert (requests["limit"], requests["remaining"], requests["owner"]) == (2, 1, "team")
    assert (tokens["limit"], tokens["remaining"], tokens["owner"]) == (1000, 900, "key")
    resets = [datetime.fromisoformat(each["rates"]["requests"]["reset_at"]) for each in (before, after)]
    assert timedelta(seconds=50) < resets[1] - resets[0] < timedelta(seconds=80)
    assert len(upstream.received) == len(meter.events(key, 1)) == 1


def test_the_view_is_for_its_key_alone(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Without a key, or with another method, there is none; without limits, they are null."""
    without = wire.exchange(meter.url, wire.request("GET", "/v1/meter/key"))
    posted = wire.exchange(meter.url, wire.request("POST", "/v1/meter/key", key=key))
    other = wire.exchange(meter.url, wire.request("GET", "/v1/meter/keys", key=key))

    assert (without.status, posted.status, other.status) == (401, 405, 404)
    assert view(meter, key)["rates"] == {"requests": None, "tokens": None}
    assert view(meter, key)["models"] is None
    assert upstream.received == []
