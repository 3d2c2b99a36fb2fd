"""The description of the admin API: what the framework finds, completed by refusals and examples."""

from collections.abc import Iterator
from typing import Any

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from meter.web.examples import EXAMPLES, REFUSAL, UNTYPED

Object = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_REFUSALS = {
    "400": "Something in the request is wrong; the message names it.",
    "401": "No token, or not a valid one.",
    "403": "The token's role is not enough.",
    "404": "There is no such thing, or it is another team's.",
    "409": "It is there already, or the Idempotency-Key was used before.",
    "413": "The body is too large.",
    "503": "The database is away; try again soon.",
}
_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "title": "Error",
    "description": "A refusal, in OpenAI's shape.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": _TEXT,
            },
        }
    },
}


# What answers that are no value of one class look like, by path.
_UNTYPED_CONTENT = {
    path: {
        "content": {
            kind: {"schema": {}, "examples": {"example": {"value": value}}} for kind, value in shown.items()
        }
    }
    for path, shown in UNTYPED.items()
}


class Document(JsonRenderPlugin):
    """Renders the description as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Object) -> bytes:
        """Return the description, completed."""
        return super().render(request, completed(openapi_schema))


def completed(document: Object) -> Object:
    """Add to every operation what it may refuse, and to every body an example."""
    schemas = document["components"]["schemas"] | {"Error": _ERROR}
    paths = {
        path: {method: _completed(path, operation) for method, operation in item.items()}
        for path, item in document["paths"].items()
    }
    for operation in operations(paths):
        for content in _contents(operation.get("requestBody", {})):
            # Members that nobody knows are refused.
            name = _name(content)
            schemas[name] = schemas[name] | {"additionalProperties": False}
    return document | {"paths": paths, "components": document["components"] | {"schemas": schemas}}


def operations(paths: Object) -> Iterator[Object]:
    """Yield every operation of a document's paths."""
    for item in paths.values():
        yield from item.values()


def _completed(path: str, operation: Object) -> Object:
    successes = {
        status: _with_example(response | _UNTYPED_CONTENT.get(path, {}))
        for status, response in operation["responses"].items()
        if status.startswith("2")
    }
    refusals = {status: _refusal(told) for status, told in _REFUSALS.items()}
    found = operation | {"responses": successes | refusals}
    if "requestBody" in operation:
        found["requestBody"] = _with_example(operation["requestBody"])
    return found


def _with_example(body: Object) -> Object:
    content = {
        kind: each | {"examples": {"example": {"value": EXAMPLES[_name(each)]}}}
        if _name(each) in EXAMPLES
        else each
        for kind, each in body.get("content", {}).items()
    }
    return body | {"content": content}


def _contents(body: Object) -> list[Object]:
    return list(body.get("content", {}).values())


def _name(content: Object) -> str:
    return str(content["schema"].get("$ref", "")).removeprefix(_SCHEMAS)


def _refusal(told: str) -> Object:
    content = {"schema": {"$ref": f"{_SCHEMAS}Error"}, "examples": {"example": {"value": REFUSAL}}}
    return {"description": told, "content": {"application/json": content}}
