"""Every error of the control plane in the one shape there is: OpenAI's."""

import json
import logging
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from meter.core.errors import InvalidRequest, MeterError, MeteringUnavailable
from meter.store.failures import DatabaseUnavailable, RowRefused

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]


def refused(_request: AnyRequest, refusal: MeterError) -> Response[bytes]:
    """Answer with a refusal of meter's own."""
    return _response(refusal.status, refusal.body(), dict(refusal.headers))


def invalid(_request: AnyRequest, fault: ValueError) -> Response[bytes]:
    """Answer to a value that a rule of the core refused."""
    return _response(InvalidRequest.status, InvalidRequest(str(fault)).body())


def unfit(_request: AnyRequest, _fault: RowRefused) -> Response[bytes]:
    """Answer to a value that the database does not take, such as text with a NUL in it."""
    refusal = InvalidRequest("A value in this request is one that the database cannot hold.")
    return _response(refusal.status, refusal.body())


def away(_request: AnyRequest, fault: DatabaseUnavailable) -> Response[bytes]:
    """Answer while the database is away."""
    log.warning("a request found the database away: %s", fault)
    refusal = MeteringUnavailable("The database is away; try again soon.")
    return _response(refusal.status, refusal.body(), dict(refusal.headers))


def too_deep(_request: AnyRequest, _fault: RecursionError) -> Response[bytes]:
    """Answer to a body nested beyond what the parser follows."""
    return _response(InvalidRequest.status, InvalidRequest("The body is nested too deeply.").body())


def http_error(_request: AnyRequest, fault: HTTPException) -> Response[bytes]:
    """Answer to what the framework refused, such as a body with unknown members."""
    extra = fault.extra if isinstance(fault.extra, list) else []
    fields = [entry for entry in extra if isinstance(entry, dict)]
    reasons = [_reason(entry) for entry in fields]
    error = {
        "message": "; ".join(reasons) or fault.detail,
        "type": "invalid_request_error",
        "param": fields[0].get("key") if fields else None,
        "code": _code(fault.status_code),
    }
    headers = {name: value for name, value in (fault.headers or {}).items() if name.lower() == "allow"}
    return _response(fault.status_code, json.dumps({"error": error}).encode(), headers)


def unexpected(request: AnyRequest, fault: Exception) -> Response[bytes]:
    """Answer to a fault of meter's own, and log it."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=fault)
    failure = MeterError("The server had an error; its log has the details.")
    return _response(failure.status, failure.body())


def _reason(entry: dict[str, Any]) -> str:
    # This is how Litestar says that there is no body.
    if (entry.get("key"), entry.get("message")) == ("data", "'data'"):
        return "The body is missing; send a JSON object, if need be an empty one: {}"
    return f"{entry.get('key', 'body')}: {entry.get('message')}"


def _code(status: int) -> str:
    return {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request_error")


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)
