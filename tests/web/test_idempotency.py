"""What is asked for twice with an Idempotency-Key happens once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from meter.core.access import Role
from meter.store import keys, teams
from meter.store.idempotency import REMEMBERED
from meter.store.tables import idempotency_keys
from tests.web.conftest import OWNER_TOKEN, Office

KEY = {"idempotency-key": "3f0c"}


def post(office: Office, path: str, body: object, token: str = OWNER_TOKEN, **headers: str) -> Any:
    """Ask for something to be made."""
    with office.asking(token) as client:
        return client.post(path, json=body, headers=KEY | headers)


def names(office: Office) -> list[str]:
    """Return what teams there are."""
    return [team.name for team in teams.list_all(office.database)]


def test_the_second_answer_is_the_first(office: Office) -> None:
    """A team is made once, and both requests get the same answer, to the byte."""
    first = post(office, "/api/v1/teams", {"name": "new"})
    second = post(office, "/api/v1/teams", {"name": "new"})

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"]


def test_another_body_is_a_conflict(office: Office) -> None:
    """A key that is used for something else does nothing."""
    post(office, "/api/v1/teams", {"name": "new"})

    answer = post(office, "/api/v1/teams", {"name": "newer"})

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "idempotency_conflict"
    assert "newer" not in names(office)


def test_a_secret_is_not_shown_again(office: Office) -> None:
    """A key is made once; the second answer names it, and no secret lies in the database."""
    first = post(office, "/api/v1/keys", {"team": "search"})
    second = post(office, "/api/v1/keys", {"team": "search"})

    made = first.json()
    assert second.status_code == 409
    assert made["id"] in second.json()["error"]["message"]
    assert made["key"] not in second.text
    assert len(keys.list_all(office.database)) == 1
    with office.database.read() as connection:
        stored = repr(connection.execute(sa.select(idempotency_keys)).all())
    assert made["key"].split("_")[2] not in stored


def test_a_rotation_happens_once(office: Office) -> None:
    """Rotating twice with one key makes one successor."""
    key = office.key("search")
    path = f"/api/v1/keys/{key.id}/rotate"

    answers = [post(office, path, {}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 409]
    assert answers[0].json()["id"] in answers[1].json()["error"]["message"]


def test_keys_are_an_askers_own(office: Office) -> None:
    """Two askers, and two routes, may use the same key."""
    other = office.token(Role.ADMIN)

    answers = [
        post(office, "/api/v1/teams", {"name": "a"}),
        post(office, "/api/v1/teams", {"name": "b"}, other),
        post(office, "/api/v1/tokens", {"role": "metrics"}),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]


def test_what_was_refused_may_be_asked_for_again(office: Office) -> None:
    """A refusal is not kept: with the fault removed the same key works."""
    refused = post(office, "/api/v1/keys", {"team": "later"})
    post(office, "/api/v1/teams", {"name": "later"}, **{"idempotency-key": "another"})

    assert refused.status_code == 404
    assert post(office, "/api/v1/keys", {"team": "later"}).status_code == 201


def test_a_day_later_a_key_is_new(office: Office) -> None:
    """What was noted is forgotten after 24 hours."""
    post(office, "/api/v1/teams", {"name": "new"})
    with office.database.write() as connection:
        aged = {"created_at": datetime.now(UTC) - REMEMBERED - timedelta(seconds=1)}
        connection.execute(sa.update(idempotency_keys).values(aged))

    assert post(office, "/api/v1/teams", {"name": "newer"}).status_code == 201


def test_of_many_at_once_one_does_it(office: Office) -> None:
    """Eight requests at once with one key make one team; none fails otherwise than as told."""
    with office.asking(OWNER_TOKEN) as client, ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: client.post("/api/v1/teams", json={"name": "new"}, headers=KEY), range(8))
        )

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert names(office).count("new") == 1


@pytest.mark.parametrize("key", [" ", "a b", "x" * 256])
def test_what_is_no_key_is_refused(office: Office, key: str) -> None:
    """A key that is none is 400 and makes nothing."""
    answer = post(office, "/api/v1/teams", {"name": "new"}, **{"idempotency-key": key})

    assert answer.status_code == 400
    assert "new" not in names(office)
