"""Text of clients and admins is a parameter of statements, never a part of them."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import TestClient

from tests import wire
from tests.fake_upstream import FakeUpstream
from tests.server import Meter
from tests.web.conftest import OWNER_TOKEN, Office, open_office

HOSTILE = [
    "'",
    '"',
    "' OR '1'='1",
    '" OR "1"="1',
    "' OR 1=1 --",
    "') OR ('1'='1",
    "1; DROP TABLE api_keys; --",
    "'; DELETE FROM usage_events; --",
    "' UNION SELECT digest, id FROM api_keys --",
    "' AND (SELECT 1 FROM (SELECT sleep(5)) x) --",
    "'; SELECT pg_sleep(5); --",
    "1 AND randomblob(1000000000)",
    "admin'/*",
    "*/ OR 1=1 /*",
    "\\'; --",
    "%' OR name LIKE '%",
    "%",
    "_",
    "%27%20OR%201%3D1",
    "\u02bc OR 1=1",
    "\uff07 OR 1=1",
    "$$; DROP TABLE teams; $$",
    "{{7*7}}",
    "${7*7}",
    "%(name)s",
    ":name",
    "?",
    "name; ATTACH DATABASE '/tmp/x' AS x",
    "\x00",
    "a\x00' OR 1=1",
    "\ud7ff",
    "1e309",
    "-1",
    "9" * 400,
    "a" * 5000,
]
STATUSES = {200, 400, 404}
# The client of these tests leaves a stream of its own open where an answer is an error.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Open a control plane with a team and a key."""
    with open_office(tmp_path_factory.mktemp("injection")) as office, office.asking(OWNER_TOKEN) as client:
        client.post("/api/v1/teams", json={"name": "search"})
        office.key("search", "nightly")
        yield office


@pytest.fixture
def statements() -> Iterator[set[str]]:
    """Collect the text of every statement that any database gets."""
    found: set[str] = set()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found.add(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def operations(client: TestClient[Litestar]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each path that is read, with the names of what stands in it and in its query."""
    document = client.get("/api/v1/openapi.json").json()
    for path, item in document["paths"].items():
        parameters = item.get("get", {}).get("parameters", [])
        inside = [each["name"] for each in parameters if each["in"] == "path"]
        query = [each["name"] for each in parameters if each["in"] == "query"]
        if "get" in item:
            yield path, inside, query


def test_no_parameter_is_a_part_of_a_statement(site: Office, statements: set[str]) -> None:
    """Every parameter of every route, with all kinds of texts: the statements are those of plain texts."""
    tried = 0
    with site.asking(OWNER_TOKEN) as client:
        found = list(operations(client))
        for path, inside, query in found:
            for name in query:
                for plain in ("search", "nightly", "1", "2026-11-01", "json"):
                    client.get(path, params={name: plain})
            for name in inside:
                client.get(path.replace("{" + name + "}", "019ab1c2-7d1e-7c55-9f0a-3b6f0c1d2e3f"))
        plain_statements = set(statements)
        for path, _, query in found:
            for at, name in enumerate(query):
                # Each text is tried with a third of all parameters.
                for text in HOSTILE[at % 3 :: 3]:
                    answer = client.get(path, params={name: text})
                    assert answer.status_code in STATUSES, (path, name, text, answer.text)
                    tried += 1

    assert tried > 200
    assert statements == plain_statements
    assert plain_statements


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
def test_no_path_is_a_part_of_a_statement(method: str, site: Office) -> None:
    """What stands for an id is one, or belongs to nobody."""
    bodies: dict[str, Any] = {"PATCH": {"models": ["m"]}}
    places = ["keys", "teams", "tokens", "budgets", "events"]
    with site.asking(OWNER_TOKEN) as client:
        before = [client.get(f"/api/v1/{place}").json()["data"] for place in ("teams", "keys")]
        for place in places:
            for text in HOSTILE:
                answer = client.request(
                    method, f"/api/v1/{place}/" + quote(text, safe=""), json=bodies.get(method)
                )
                assert answer.status_code in {400, 404, 405}, (place, text, answer.text)
        after = [client.get(f"/api/v1/{place}").json()["data"] for place in ("teams", "keys")]
    assert after == before


def test_no_name_is_a_part_of_a_statement(site: Office) -> None:
    """Names that people choose come back as they were chosen, and change nothing else."""
    with site.asking(OWNER_TOKEN) as client:
        before = len(client.get("/api/v1/teams").json()["data"])
        chosen = []
        for text in HOSTILE:
            answer = client.post("/api/v1/teams", json={"name": f"team {text}"})
            assert answer.status_code in {201, 400}, (text, answer.text)
            chosen += [f"team {text}"] if answer.status_code == 201 else []
        names = [team["name"] for team in client.get("/api/v1/teams").json()["data"]]
        reported = [client.get("/api/v1/reports", params={"team": name}).status_code for name in chosen]

    assert set(chosen) <= set(names)
    assert len(names) == before + len(chosen)
    assert set(reported) == {200}


def test_no_credential_is_a_part_of_a_statement(site: Office, statements: set[str]) -> None:
    """What is no token by its shape asks no database at all, whatever it would say there."""
    for text in HOSTILE:
        for given in (text, f"mta_{text}", f"mta_{'a' * 12}_{text}"):
            with site.asking(None) as client:
                bearer = b"Bearer " + given.encode("utf-8", "replace").replace(b"\0", b"")
                answer = client.get("/api/v1/keys", headers={b"authorization": bearer})
                assert answer.status_code == 401, (given, answer.text)

    assert statements == set()


def test_no_key_is_a_part_of_a_statement(upstream: FakeUpstream, meter: Meter) -> None:
    """On the data listener, too, what is no key by its shape is 401 like every other."""
    bodies = set()
    for text in HOSTILE:
        sent = text.encode("utf-8", "replace").decode("latin-1").replace("\0", "")
        for given in (sent, f"mtr_{sent}"):
            answer = wire.post(meter.url, given[:1000], wire.chat())
            assert answer.status == 401, given
            bodies.add(answer.body)

    assert len(bodies) == 1
    assert upstream.received == []
