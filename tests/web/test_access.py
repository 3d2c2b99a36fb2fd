"""Who may do what: every route and every role, against a table that is written out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from meter.app import actions, budgets
from meter.core.access import Role
from meter.core.audit import Entry
from meter.core.budget_drafts import Draft
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.keys import Key
from meter.store import audit, ledger
from tests.web.conftest import METRICS_TOKEN, OWNER_TOKEN, Office, open_office
from tests.web.visits import session_cookie

OTHERS_TEAM = "the other team, which a viewer of one team must not see"
OTHERS_KEY = "the key of another team"
# Everything that a body may hold, by route; placeholders are filled with things made for each request.
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/api/v1/keys"): {"team": "search"},
    ("PATCH", "/api/v1/keys/{key_id}"): {"stream_usage": "observe"},
    ("POST", "/api/v1/keys/{key_id}/rotate"): {"grace_seconds": 60},
    ("POST", "/api/v1/teams"): {"name": "{new}"},
    ("PATCH", "/api/v1/teams/{team_id}"): {"models": ["model"]},
    ("POST", "/api/v1/tokens"): {"role": "metrics"},
    ("PUT", "/api/v1/budgets"): {"limit": "50", "period": "month", "team": "search"},
    ("POST", "/api/v1/prices"): {"model": "m", "prompt_usd_per_mtok": "1"},
}
# What a token of each role gets, in the order of `ROLES`.
ROLES = ("metrics", "team", "viewer", "admin")
MATRIX = {
    ("GET", "/metrics"): (200, 403, 200, 200),
    ("GET", "/api/v1/openapi.json"): (403, 200, 200, 200),
    ("GET", "/api/v1/keys"): (403, 200, 200, 200),
    ("POST", "/api/v1/keys"): (403, 403, 403, 201),
    ("PATCH", "/api/v1/keys/{key_id}"): (403, 403, 403, 200),
    ("DELETE", "/api/v1/keys/{key_id}"): (403, 403, 403, 200),
    ("POST", "/api/v1/keys/{key_id}/rotate"): (403, 403, 403, 201),
    ("GET", "/api/v1/teams"): (403, 200, 200, 200),
    ("POST", "/api/v1/teams"): (403, 403, 403, 201),
    ("PATCH", "/api/v1/teams/{team_id}"): (403, 403, 403, 200),
    ("GET", "/api/v1/prices"): (403, 403, 200, 200),
    ("POST", "/api/v1/prices"): (403, 403, 403, 201),
    ("GET", "/api/v1/tokens"): (403, 403, 403, 200),
    ("POST", "/api/v1/tokens"): (403, 403, 403, 201),
    ("DELETE", "/api/v1/tokens/{token_id}"): (403, 403, 403, 200),
    ("GET", "/api/v1/events"): (403, 200, 200, 200),
    ("GET", "/api/v1/events/{event_id}"): (403, 200, 200, 200),
    ("GET", "/api/v1/reports"): (403, 200, 200, 200),
    ("GET", "/api/v1/reports/refusals"): (403, 200, 200, 200),
    ("GET", "/api/v1/audit-log"): (403, 403, 403, 200),
    ("GET", "/api/v1/alerts"): (403, 403, 200, 200),
    ("GET", "/api/v1/budgets"): (403, 200, 200, 200),
    ("PUT", "/api/v1/budgets"): (403, 403, 403, 200),
    ("DELETE", "/api/v1/budgets/{budget_id}"): (403, 403, 403, 200),
}
# What the page gives to a session of each role; a scraper's token gets none, and so is as good as signed out.
PAGES = {
    ("GET", "/spend"): (303, 200, 200, 200),
    ("GET", "/spend/events"): (303, 200, 200, 200),
    ("GET", "/spend/events/{event_id}"): (303, 200, 200, 200),
    ("POST", "/sign-out"): (303, 303, 303, 303),
}
# What is there before anybody has signed in; it tells nothing.
OPEN = {
    ("GET", "/"): 303,
    ("GET", "/sign-in"): 200,
    ("POST", "/sign-in"): 403,
    ("GET", "/assets/{name}"): 404,
}
# Tokens of the configuration, and the role that each is like.
CONFIGURED = {"scraper": "metrics", "owner": "admin"}
NOBODY = ("none", "wrong", "a client's key", "a revoked token", "an unknown token")


class Site(NamedTuple):
    """A control plane with things of two teams, and a token of each kind."""

    office: Office
    client: TestClient[Litestar]
    tokens: dict[str, str | None]
    event_id: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Open a control plane for all rows of the table."""
    folder: Path = tmp_path_factory.mktemp("access")
    with open_office(folder) as office, office.asking(None) as client:
        for team in ("search", OTHERS_TEAM):
            actions.register_team(office.database, "test", team)
        others_key = office.key(OTHERS_TEAM, OTHERS_KEY)
        budgets.put(office.database, "test", Draft(limit="1", period="day", team=OTHERS_TEAM))
        budgets.put(office.database, "test", Draft(limit="1", period="day", key=others_key.id))
        others = make_event(actions.new_event_id(), key=others_key)
        ours = make_event(actions.new_event_id(), key=office.key("search"))
        ledger.append(office.database, [others, ours], ours.started_at)
        revoked = office.token(Role.ADMIN)
        actions.revoke_token(office.database, "test", revoked.split("_")[1])
        _, client_key = actions.issue_key(office.database, b"x" * 32, "test", "search", None, None)
        tokens = {
            "none": None,
            "wrong": "wrong",
            "a client's key": client_key,
            "a revoked token": revoked,
            "an unknown token": f"mta_{'a' * 12}_{'a' * 43}",
            "metrics": office.token(Role.METRICS),
            "team": office.token(Role.VIEWER, "search"),
            "viewer": office.token(Role.VIEWER),
            "admin": office.token(Role.ADMIN),
            "owner": OWNER_TOKEN,
            "scraper": METRICS_TOKEN,
        }
        yield Site(office, client, tokens, ours.event_id)


def make_event(event_id: str, key: Key) -> UsageEvent:
    """Make an event of a key."""
    return UsageEvent(
        event_id=event_id,
        started_at=datetime(2026, 11, 25, tzinfo=UTC),
        team_id=key.team_id,
        key_id=key.id,
        route="chat.completions",
        upstream="upstream",
        model_requested="model",
        stream=False,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
    )


def routes(app: Litestar) -> set[tuple[str, str]]:
    """Return every method and path that an application serves, but for OPTIONS, which Litestar adds."""
    found = [route for route in app.routes if isinstance(route, HTTPRoute)]
    assert len(found) == len(app.routes)
    served = {(str(method), route.path_format) for route in found for method in route.methods}
    return {(method, path) for method, path in served if method != "OPTIONS"}


def ask(site: Site, method: str, path: str, role: str) -> tuple[int, str]:
    """Ask a route as somebody, about things that are there for this request only."""
    key = site.office.key("search")
    made = {
        "key_id": key.id,
        "team_id": key.team_id,
        "token_id": site.office.token(Role.METRICS).split("_")[1],
        "event_id": site.event_id,
        "budget_id": made_budget(site.office, key.id),
    }
    body = BODIES.get((method, path))
    if isinstance(body, dict):
        body = {name: key.id if value == "{new}" else value for name, value in body.items()}
    token = site.tokens[role]
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = site.client.request(method, path.format(**made), headers=headers, json=body)
    return answer.status_code, answer.text


def made_budget(office: Office, key: str) -> str:
    """Make a budget that is there for one request; returns its id."""
    return budgets.put(office.database, "test", Draft(limit="1", period="day", key=key)).id


def last_change(site: Site) -> Entry:
    """Return the newest entry of the audit log."""
    (entry,) = audit.page(site.office.database, limit=1)
    return entry


def test_the_table_has_every_route(site: Site) -> None:
    """A route that is added has to be added to the table, with what each role gets."""
    assert routes(site.office.app) == {*MATRIX, *PAGES, *OPEN}


@pytest.mark.parametrize(("method", "path"), MATRIX)
@pytest.mark.parametrize("nobody", NOBODY)
def test_nobody_gets_anything(site: Site, method: str, path: str, nobody: str) -> None:
    """Without a valid token every route answers alike."""
    status, text = ask(site, method, path, nobody)

    assert status == 401
    assert text == ask(site, "GET", "/metrics", "none")[1]


@pytest.mark.parametrize(("method", "path"), MATRIX)
@pytest.mark.parametrize("role", [*ROLES, *CONFIGURED])
def test_every_role_gets_what_the_table_says(site: Site, method: str, path: str, role: str) -> None:
    """Each role gets its status, a refusal has OpenAI's shape, and no team's viewer sees another team."""
    expected = MATRIX[method, path][ROLES.index(CONFIGURED.get(role, role))]

    status, text = ask(site, method, path, role)

    assert status == expected, text
    assert (status != 403) or '"code": "insufficient_permissions"' in text
    if role == "team":
        assert OTHERS_TEAM not in text
        assert OTHERS_KEY not in text


@pytest.mark.parametrize(("method", "path"), [row for row in MATRIX if row[0] != "GET"])
@pytest.mark.parametrize("role", ["admin", "owner"])
def test_every_change_is_in_the_audit_log(site: Site, method: str, path: str, role: str) -> None:
    """What an admin changes is written down with the admin's name, and what is refused is not."""
    status, _ = ask(site, method, path, role)
    entry = last_change(site)
    refused, _ = ask(site, method, path, "viewer")

    assert (status < 300, refused) == (True, 403)
    token = site.tokens[role] or ""
    assert entry.actor.split()[0] == ("owner" if role == "owner" else token.split("_")[1])
    assert last_change(site).actor == "test"


def test_a_route_that_declares_nothing_is_for_nobody(office: Office) -> None:
    """Who forgets to say for whom a route is has made it for nobody, the owner included."""

    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return "secret"

    office.app.register(forgotten)

    with office.asking(OWNER_TOKEN) as client:
        answer = client.get("/forgotten")

    assert answer.status_code == 403
    assert "secret" not in answer.text


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize("role", ROLES)
def test_every_session_gets_what_the_table_says(site: Site, method: str, path: str, role: str) -> None:
    """Each role's session gets its status, and no team's viewer sees another team on a page."""
    page_cookie = session_cookie(site.client, site.tokens[role] or "")
    form = {"form": page_cookie.form} if method == "POST" else None
    headers = {"cookie": page_cookie.header}

    answer = site.client.request(
        method, path.format(event_id=site.event_id), headers=headers, data=form, follow_redirects=False
    )

    assert answer.status_code == PAGES[method, path][ROLES.index(role)], answer.text
    if role == "team":
        assert OTHERS_TEAM not in answer.text
        assert OTHERS_KEY not in answer.text
    elif answer.status_code == 200 and path == "/spend":
        assert OTHERS_TEAM in answer.text


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize("role", [*NOBODY, "owner"])
def test_a_page_without_a_session_is_the_form_for_signing_in(
    site: Site, method: str, path: str, role: str
) -> None:
    """A token in a header opens no page, whoever's it is."""
    headers = {"authorization": f"Bearer {site.tokens[role]}"}

    answer = site.client.request(
        method, path.format(event_id=site.event_id), headers=headers, follow_redirects=False
    )

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_is_open_tells_nothing(site: Site, method: str, path: str) -> None:
    """Before anybody has signed in there is a form, and no name of anything."""
    answer = site.client.request(method, path.format(name="none"), follow_redirects=False)

    assert answer.status_code == OPEN[method, path]
    assert "search" not in answer.text


def test_a_session_opens_nothing_of_the_api(site: Site) -> None:
    """A cookie is no token: not even the owner's session gets anything there, nor changes anything."""
    headers = {"cookie": session_cookie(site.client, OWNER_TOKEN).header}
    named = dict.fromkeys(("key_id", "team_id", "token_id", "event_id", "budget_id"), "x")

    answers = [site.client.request(method, path.format(**named), headers=headers) for method, path in MATRIX]

    assert {answer.status_code for answer in answers} == {401}


@pytest.mark.parametrize("path", sorted({path for _, path in (*PAGES, *OPEN)}))
def test_options_is_no_method_of_any_page(site: Site, path: str) -> None:
    """Nor does it tell more than that to somebody who has signed in."""
    headers = {"cookie": session_cookie(site.client, OWNER_TOKEN).header}

    answer = site.client.options(path.format(name="page.js", event_id=site.event_id), headers=headers)

    assert answer.status_code == 405
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", sorted({path for _, path in MATRIX}))
def test_options_is_no_method_of_any_route(site: Site, path: str) -> None:
    """OPTIONS, to which Litestar would answer itself, tells nobody anything without a token."""
    headers = {"authorization": f"Bearer {OWNER_TOKEN}"}

    assert ask(site, "OPTIONS", path, "none")[0] == 401
    assert ask(site, "OPTIONS", path, "owner")[0] == 405
    assert site.client.options(path, headers=headers).headers["allow"]


def test_another_teams_things_do_not_exist(site: Site) -> None:
    """A team's viewer that names another team gets what it would get for no team at all."""
    headers = {"authorization": f"Bearer {site.tokens['team']}"}

    others = site.client.get("/api/v1/keys", params={"team": OTHERS_TEAM}, headers=headers)
    nobodys = site.client.get("/api/v1/keys", params={"team": "x"}, headers=headers)

    assert (others.status_code, nobodys.status_code) == (404, 404)
    assert others.text.replace(OTHERS_TEAM, "x") == nobodys.text


def test_a_teams_viewer_sees_its_own_team(site: Site) -> None:
    """What belongs to the team is there."""
    headers = {"authorization": f"Bearer {site.tokens['team']}"}

    teams = site.client.get("/api/v1/teams", headers=headers).json()["data"]
    keys = site.client.get("/api/v1/keys", headers=headers).json()["data"]

    assert [team["name"] for team in teams] == ["search"]
    assert {key["team"] for key in keys} == {"search"}
