"""What forms are checked by, so that no other site's page can send them in somebody's name."""

from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.datastructures import Cookie

from meter.core.errors import NotPermitted
from meter.web.access import SESSION_COOKIE

AnyRequest = Request[Any, Any, Any]

# Binds the form for signing in to a browser that has no session yet.
FORM_COOKIE = "__Host-meter_form"
START = "/spend"
_NEXT_LENGTH_MAX = 2_000


def check_origin(request: AnyRequest) -> None:
    """Refuse what another site's page has sent; browsers say so themselves."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    from_here = site == "same-origin" if site is not None else origin is None or _is_own(origin, request)
    if not from_here:
        raise NotPermitted("This form was sent by another site. Open the page itself, and try again.")


def cookie(name: str, value: str, seconds: int) -> Cookie:
    """Make a cookie that only this host gets, by no script and from no other site."""
    return Cookie(name, path="/", value=value, max_age=seconds, secure=True, httponly=True, samesite="strict")


def no_session() -> Cookie:
    """Make what takes the session's cookie away."""
    return cookie(SESSION_COOKIE, "", 0)


def local(address: str) -> str:
    """Return an address of the page, or its beginning where a link leads elsewhere."""
    of_page = address == START or address.startswith((f"{START}?", f"{START}/"))
    readable = address.isascii() and address.isprintable() and "\\" not in address
    return address if of_page and readable and len(address) <= _NEXT_LENGTH_MAX else START


def _is_own(origin: str, request: AnyRequest) -> bool:
    return urlsplit(origin).netloc == request.headers.get("host")
