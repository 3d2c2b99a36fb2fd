"""Who may use the control plane: one guard, and one way for a route to say what it asks for.

Every route asks for a token, also on loopback: other users and web pages reach that as well. The Host header
is checked, so that a page whose name was rebound to this address gets nothing. A route says in its `opt` for
whom it is; one that says nothing is for nobody.

The spend page is the exception: it asks for a session, which a token has begun, and its form for signing in
and its styles are for anybody. A session opens nothing but the page, and no cookie opens the rest.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import BaseRouteHandler

from meter.core.access import Asker, Least
from meter.core.errors import InvalidRequest, NotPermitted
from meter.web.sessions import Visitor

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

_LEAST = "least"
FOR_SCRAPERS = {_LEAST: Least.METRICS}
FOR_TEAMS = {_LEAST: Least.TEAM}
"""For viewers; handlers ask for what is in the asker's scope."""
FOR_VIEWERS = {_LEAST: Least.VIEWER}
FOR_ADMINS = {_LEAST: Least.ADMIN}
_DOOR = "door"
_SESSION = "session"
_OPEN = "open"
FOR_VISITORS = {_LEAST: Least.TEAM, _DOOR: _SESSION}
"""For the page: whoever has signed in as a viewer, or more."""
FOR_ANYBODY = {_DOOR: _OPEN}

# The prefix makes browsers insist that it came by this host, over TLS or loopback, for all paths.
SESSION_COOKIE = "__Host-meter_session"

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]


def guard(
    find_asker: Callable[[str, str, list[str]], Awaitable[Asker]],
    find_visitor: Callable[[str], Awaitable[Visitor]],
    hosts: Collection[str],
) -> Guard:
    """Make the guard, of whom tokens and sessions belong to and the names the listener may be reached by."""
    allowed = LOCAL_HOSTS | {host.lower() for host in hosts}

    async def check(connection: Connection, handler: BaseRouteHandler) -> None:
        _check_host(connection.headers.getall("host", []), allowed)
        door = handler.opt.get(_DOOR)
        if door == _OPEN:
            _check_method(connection)
            return
        if door == _SESSION:
            visitor = await find_visitor(connection.cookies.get(SESSION_COOKIE, ""))
            connection.scope["auth"] = visitor
            asker = visitor.asker
        else:
            asker = await find_asker(
                _bearer(connection.headers.getall("authorization", [])), *origin_of(connection)
            )
        _check_method(connection)
        _check_role(asker, handler)
        # Where handlers find it as the dependency `asker`.
        connection.scope["user"] = asker

    return check


def asker_of(connection: Connection) -> Asker:
    """Return whom the guard let in."""
    asker: Asker = connection.user
    return asker


def origin_of(connection: Connection) -> tuple[str, list[str]]:
    """Return where a request comes from, and for whom its proxies say that they speak."""
    host = "" if connection.client is None else connection.client.host
    return host, connection.headers.getall("x-forwarded-for", [])


def visitor_of(connection: Connection) -> Visitor:
    """Return who looks at a page, and in which session."""
    visitor: Visitor = connection.auth
    return visitor


def _check_host(received: list[str], allowed: Collection[str]) -> None:
    names = {_without_port(host).lower() for host in received}
    if len(received) != 1 or not names <= set(allowed):
        raise InvalidRequest("This Host is not one of the control listener's (the setting admin_hosts).")


def _without_port(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _bearer(received: list[str]) -> str:
    scheme, _, given = (received[0] if len(received) == 1 else "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _check_method(connection: Connection) -> None:
    # Litestar adds answers to OPTIONS that know a part of a path's methods only.
    if connection.scope.get("method") == "OPTIONS":
        path = connection.scope["path_template"]
        known = {
            method for route in connection.app.routes if route.path_format == path for method in route.methods
        }
        allowed = sorted(str(method) for method in known if method != "OPTIONS")
        raise MethodNotAllowedException(headers={"allow": ", ".join(allowed)})


def _check_role(asker: Asker, handler: BaseRouteHandler) -> None:
    least = handler.opt.get(_LEAST)
    if least is None or not asker.may(least):
        raise NotPermitted(f"A token of role '{asker.role}'{_of_team(asker)} is not enough for this.")


def _of_team(asker: Asker) -> str:
    return "" if asker.team_id is None else " of a team"
