"""Who may use the control plane.

Every route asks for the token, also on loopback: other users and web pages reach that as well. The Host
header is checked, so that a page whose name was rebound to this address gets nothing.
"""

import hmac
from collections.abc import Callable, Collection
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from meter.core.errors import InvalidAdminToken, InvalidRequest

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], None]


def guard(token: str, hosts: Collection[str]) -> Guard:
    """Make the guard of the control plane: one admin token, and the names it may be reached by."""
    allowed = LOCAL_HOSTS | {host.lower() for host in hosts}

    def check(connection: Connection, _handler: BaseRouteHandler) -> None:
        _check_host(connection.headers.getall("host", []), allowed)
        _check_token(connection.headers.getall("authorization", []), token)

    return check


def _check_host(received: list[str], allowed: Collection[str]) -> None:
    names = {_without_port(host).lower() for host in received}
    if len(received) != 1 or not names <= set(allowed):
        raise InvalidRequest("This Host is not one of the control listener's (the setting admin_hosts).")


def _without_port(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _check_token(received: list[str], token: str) -> None:
    scheme, _, given = (received[0] if len(received) == 1 else "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    if scheme.lower() != "bearer" or not same:
        raise InvalidAdminToken
