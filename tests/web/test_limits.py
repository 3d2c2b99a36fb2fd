"""Limits over HTTP: only what is given changes, and what cannot be kept is refused by name."""

from uuid import uuid4

import httpx
import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import Meter, until

OK = [response(b'{"choices":[]}')]
UNSET = {"models": None, "rpm": None, "tpm": None, "concurrency": None}


def limits(answer: httpx.Response) -> dict[str, object]:
    """Return the limits that a key or a team has."""
    assert answer.status_code == 200, answer.text
    return {name: answer.json()[name] for name in UNSET}


@pytest.mark.parametrize("kind", ["keys", "teams"])
def test_only_what_is_given_changes(meter: Meter, kind: str) -> None:
    """What is not given stays, null is as the settings say, and the list shows what is set."""
    team = f"team {uuid4()}"
    with meter.control as control:
        made = control.post("/api/v1/teams", json={"name": team}).json()["id"]
        if kind == "keys":
            made = control.post("/api/v1/keys", json={"team": team}).json()["id"]
        path = f"/api/v1/{kind}/{made}"

        first = limits(control.patch(path, json={"models": ["a", "b/*", "a"], "rpm": 7}))
        second = limits(control.patch(path, json={"rpm": None, "tpm": 0, "concurrency": 3}))
        third = limits(control.patch(path, json={}))
        listed = next(each for each in control.get(f"/api/v1/{kind}").json()["data"] if each["id"] == made)

    assert first == UNSET | {"models": ["a", "b/*"], "rpm": 7}
    assert second == third == UNSET | {"models": ["a", "b/*"], "tpm": 0, "concurrency": 3}
    assert {name: listed[name] for name in UNSET} == second


def test_a_change_of_limits_leaves_how_streams_are_metered(meter: Meter) -> None:
    """The members of one request do not touch those of another."""
    with meter.control as control:
        key_id = control.post("/api/v1/keys", json={"team": "default"}).json()["id"]
        control.patch(f"/api/v1/keys/{key_id}", json={"stream_usage": "observe"})

        changed = control.patch(f"/api/v1/keys/{key_id}", json={"rpm": 5}).json()

    assert (changed["stream_usage"], changed["rpm"]) == ("observe", 5)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"rpm": -1}, "rpm"),
        ({"tpm": 10**13}, "tpm"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"rpm": "seven"}, "rpm"),
        ({"rpm": True}, "rpm"),
        ({"models": []}, "models"),
        ({"models": "openai/gpt-4.1"}, "models"),
        ({"models": ["openai/gpt-*"]}, "models"),
        ({"models": [" a"]}, "models"),
        ({"modles": ["a"]}, "modles"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused_by_name(
    meter: Meter, body: dict[str, object], named: str
) -> None:
    """The error names the member at fault, and nothing changes."""
    with meter.control as control:
        refused = control.patch("/api/v1/teams/default", json=body)
        teams = control.get("/api/v1/teams").json()["data"]

    assert refused.status_code == 400
    assert named in refused.json()["error"]["message"]
    assert UNSET.items() <= next(team for team in teams if team["name"] == "default").items()


def test_a_list_of_models_is_live_within_seconds(meter: Meter, upstream: FakeUpstream) -> None:
    """A running server refuses the model for a key that it knows, and the upstream hears nothing of it."""
    upstream.answer(OK)
    key = meter.new_key()
    assert wire.post(meter.url, key, wire.chat()).status == 200
    upstream.received.clear()
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"models": ["openai/*"]})

    def refused() -> wire.Answer | None:
        answer = wire.post(meter.url, key, wire.chat())
        return None if answer.status == 200 else answer

    answer = until(refused, "the list of models")

    assert answer is not None
    assert (answer.status, answer.error["code"], answer.error["param"]) == (403, "model_not_allowed", "model")
    assert "'test-model'" in answer.error["message"]
    assert "openai/*" in answer.error["message"]
    assert len(meter.events(key)) >= 1
