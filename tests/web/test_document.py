"""The description of the admin API: complete, true, and held against a server that runs."""

from typing import Any

import pytest

from meter.web import examples
from tests.web.conftest import OWNER_TOKEN, Office

REFUSALS = {"400", "401", "403", "404", "409", "503"}


@pytest.fixture
def document(office: Office) -> dict[str, Any]:
    """Return what the server says of itself."""
    with office.asking(OWNER_TOKEN) as client:
        found: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every operation by its method and path."""
    return {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def bodies(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an operation takes and gives."""
    given = [response for status, response in operation["responses"].items() if status.startswith("2")]
    taken = [operation["requestBody"]] if "requestBody" in operation else []
    return [content for each in (*taken, *given) for content in each["content"].values()]


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    """What an operation takes and gives is shown by an example of `meter.web.examples`."""
    for name, operation in operations(document).items():
        for content in bodies(operation):
            if not content["schema"]:
                # It is no value of one class.
                assert name.removeprefix("get ") in examples.UNTYPED, name
                continue
            schema = content["schema"]["$ref"].rpartition("/")[2]
            assert schema in examples.EXAMPLES, f"{name}: {schema} has no example in meter/web/examples.py"
            assert content["examples"]["example"]["value"] == examples.EXAMPLES[schema]


def test_every_operation_says_what_it_refuses(document: dict[str, Any]) -> None:
    """Each refusal has OpenAI's shape, and is described for every operation."""
    for name, operation in operations(document).items():
        assert set(operation["responses"]) >= REFUSALS, name
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}, name
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert set(error["properties"]) == {"message", "type", "param", "code"}


def test_bodies_take_no_other_members(document: dict[str, Any]) -> None:
    """The description says that unknown members are refused, as they are."""
    for operation in operations(document).values():
        if "requestBody" in operation:
            (content,) = operation["requestBody"]["content"].values()
            schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            assert schema["additionalProperties"] is False


def test_examples_of_bodies_are_accepted(office: Office) -> None:
    """Whoever pastes an example of what to make gets it made."""
    pasted = {"/api/v1/teams": "NewTeam", "/api/v1/keys": "NewKey", "/api/v1/tokens": "NewToken"}
    with office.asking(OWNER_TOKEN) as client:
        for path, name in pasted.items():
            body = dict(examples.EXAMPLES[name])
            if path == "/api/v1/teams":
                body["name"] = "a new one"
            assert client.post(path, json=body).status_code == 201, name
