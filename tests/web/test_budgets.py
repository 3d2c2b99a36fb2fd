"""Budgets over HTTP: made, changed, seen and taken away."""

import pytest

from tests.web.conftest import OWNER_TOKEN, Office

MONTHLY = {"limit": "50", "period": "month", "team": "search", "tz": "Europe/Berlin"}


def test_a_budget_is_made_and_changed(office: Office) -> None:
    """Setting the same budget again changes it, and keeps its id."""
    with office.asking(OWNER_TOKEN) as client:
        made = client.put("/api/v1/budgets", json=MONTHLY).json()
        changed = client.put(
            "/api/v1/budgets", json=MONTHLY | {"limit": "75.5", "enforcement": "strict"}
        ).json()
        listed = client.get("/api/v1/budgets").json()["data"]

    assert (made["limit"], made["spent"], made["available"]) == ("50.000000", "0.000000", "50.000000")
    assert (made["owner_kind"], made["owner"], made["enforcement"]) == ("team", "search", "standard")
    assert (changed["id"], changed["limit"], changed["enforcement"]) == (made["id"], "75.500000", "strict")
    assert listed == [changed]


def test_another_measure_is_another_budget(office: Office) -> None:
    """There is one budget for each owner, measure, period and model pattern."""
    variants = [
        MONTHLY,
        MONTHLY | {"measure": "tokens", "limit": "1000"},
        MONTHLY | {"period": "day"},
        MONTHLY | {"model": "openai/*"},
        {"limit": "50", "period": "month"},
    ]
    with office.asking(OWNER_TOKEN) as client:
        ids = {client.put("/api/v1/budgets", json=variant).json()["id"] for variant in variants}

    assert len(ids) == len(variants)


def test_a_removed_budget_is_gone(office: Office) -> None:
    """It is in no list any more, and removing it again finds nothing."""
    with office.asking(OWNER_TOKEN) as client:
        made = client.put("/api/v1/budgets", json=MONTHLY).json()["id"]
        removed = client.delete(f"/api/v1/budgets/{made}")
        again = client.delete(f"/api/v1/budgets/{made}")
        listed = client.get("/api/v1/budgets").json()["data"]

    assert (removed.status_code, removed.json()) == (200, {"id": made})
    assert again.status_code == 404
    assert listed == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"limit": "x", "period": "month"}, 400, "amount"),
        ({"limit": "-1", "period": "month"}, 400, "limit"),
        ({"limit": "1.5", "period": "month", "measure": "requests"}, 400, "limit"),
        ({"limit": 50, "period": "month"}, 400, "limit"),
        ({"limit": "50"}, 400, "period"),
        ({"limit": "50", "period": "year"}, 400, "period"),
        ({"limit": "50", "period": "day", "tz": "Mars/Olympus"}, 400, "Mars"),
        ({"limit": "50", "period": "day", "team": "search", "key": "k"}, 400, "one owner"),
        ({"limit": "50", "period": "day", "team": "nobody"}, 404, "nobody"),
        ({"limit": "50", "period": "day", "key": "nothing"}, 404, "nothing"),
        ({"limit": "50", "period": "day", "enforcement": "hard"}, 400, "enforcement"),
        ({"limit": "50", "period": "day", "thresholds": [0]}, 400, "thresholds"),
        ({"limit": "50", "period": "day", "colour": "red"}, 400, "colour"),
    ],
)
def test_faults_name_what_is_wrong(office: Office, body: dict[str, object], status: int, said: str) -> None:
    """What cannot be read is refused in OpenAI's shape, naming the field."""
    with office.asking(OWNER_TOKEN) as client:
        answer = client.put("/api/v1/budgets", json=body)

    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
