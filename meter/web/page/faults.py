"""What people see in a browser when something cannot be shown: the same refusals, as pages."""

import logging
from collections.abc import Mapping
from urllib.parse import urlencode

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from meter.core.errors import InvalidAdminToken, MeterError
from meter.store.failures import DatabaseUnavailable, RowRefused
from meter.web.access import SESSION_COOKIE
from meter.web.page.forms import AnyRequest, no_session
from meter.web.page.rendering import message, page, to

log = logging.getLogger(__name__)

_TITLES = {
    400: "This cannot be shown",
    403: "Not allowed",
    404: "Not found",
    503: "The database is away",
}


def signed_out(request: AnyRequest, _refusal: InvalidAdminToken) -> Response[str]:
    """Lead whoever has no session to the form for signing in, and back to this address afterwards."""
    has_cookie = SESSION_COOKIE in request.cookies
    if request.method != "GET":
        return to("/sign-in", cookies=[no_session()])
    if not has_cookie and request.headers.get("sec-fetch-site") == "cross-site":
        # Somebody has followed a link from elsewhere, with which browsers send no strict cookie: they do when
        # this page asks for itself.
        return page("again.html", {"address": _address(request)})
    asked = urlencode({"next": _address(request)})
    return to(f"/sign-in?{asked}", cookies=[no_session()] if has_cookie else [])


def refused(_request: AnyRequest, refusal: MeterError) -> Response[str]:
    """Show a refusal of meter's own."""
    return _shown(refusal.status, refusal.message)


def invalid(_request: AnyRequest, fault: ValueError) -> Response[str]:
    """Show what a rule of the core refused."""
    return _shown(400, str(fault))


def unfit(_request: AnyRequest, _fault: RowRefused) -> Response[str]:
    """Show that the database does not take a value."""
    return _shown(400, "A value in this address is one that the database cannot hold.")


def away(_request: AnyRequest, fault: DatabaseUnavailable) -> Response[str]:
    """Show that the database is away."""
    log.warning("a page found the database away: %s", fault)
    return _shown(503, "Nothing is lost: requests go on being metered. Try again soon.")


def http_error(_request: AnyRequest, fault: HTTPException) -> Response[str]:
    """Show what the framework refused."""
    return _shown(fault.status_code, fault.detail, fault.headers)


def unexpected(request: AnyRequest, fault: Exception) -> Response[str]:
    """Show that meter has a fault, and log it."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=fault)
    return _shown(500, "The server had an error; its log has the details.")


FAULTS: ExceptionHandlersMap = {
    InvalidAdminToken: signed_out,
    MeterError: refused,
    HTTPException: http_error,
    DatabaseUnavailable: away,
    RowRefused: unfit,
    ValueError: invalid,
    Exception: unexpected,
}


def _shown(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response[str]:
    title = _TITLES.get(status, "Something went wrong")
    return message({"title": title, "text": text[:1].upper() + text[1:]}, status=status, headers=headers)


def _address(request: AnyRequest) -> str:
    query = request.scope.get("query_string", b"").decode("latin-1")
    return f"{request.scope['path']}?{query}" if query else str(request.scope["path"])
