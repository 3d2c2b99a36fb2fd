"""The routes of the data plane. A route is a row; whatever is no row is 404.

Paths are compared as they came, undecoded, and a route's upstream path is a constant: nothing that a client
writes into a path can reach another one.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from meter.core.errors import MethodNotAllowed, NotFound


class Route(NamedTuple):
    """One row: a method and path here, a path below the upstream's base URL there."""

    name: str
    method: str
    path: str
    upstream_path: str
    metered: bool


class Match(NamedTuple):
    """A route, and what of the path varies."""

    route: Route
    upstream_path: str
    model: str | None = None


ROUTES: tuple[Route, ...] = (
    Route("chat.completions", "POST", "/v1/chat/completions", "/chat/completions", metered=True),
    Route("completions", "POST", "/v1/completions", "/completions", metered=True),
    Route("embeddings", "POST", "/v1/embeddings", "/embeddings", metered=True),
    Route("models", "GET", "/v1/models", "/models", metered=False),
)
KEY = Route("key", "GET", "/v1/meter/key", "", metered=False)
"""Of meter itself: it has no path upstream."""
MODEL = Route("model", "GET", "/v1/models/{model}", "/models/", metered=False)

METERED = {route.path.encode(): Match(route, route.upstream_path) for route in ROUTES if route.metered}
"""By the whole of a request's target."""

_BY_PATH = {route.path: route for route in (*ROUTES, KEY)}
_MODEL_PREFIX = "/v1/models/"
# A model's name: segments without a leading dot, so that none of them climbs.
_MODEL_NAME = re.compile(r"[A-Za-z0-9_:@~-][\w.:@~-]*(?:/[A-Za-z0-9_:@~-][\w.:@~-]*)*", re.ASCII)


def match(method: str, raw_path: str) -> Match:
    """Find the route of a request; raises `NotFound` or `MethodNotAllowed`."""
    route = _BY_PATH.get(raw_path)
    found = Match(route, route.upstream_path) if route is not None else _match_model(raw_path)
    if found is None:
        raise NotFound(f"There is no route {_shown(raw_path)}. meter serves: {_served()}.")
    if method != found.route.method:
        raise MethodNotAllowed(f"Use {found.route.method} for {found.route.path}.")
    return found


def _match_model(raw_path: str) -> Match | None:
    if not raw_path.startswith(_MODEL_PREFIX):
        return None
    raw_name = raw_path.removeprefix(_MODEL_PREFIX)
    name = unquote(raw_name)
    return Match(MODEL, MODEL.upstream_path + raw_name, name) if _MODEL_NAME.fullmatch(name) else None


def _shown(raw_path: str) -> str:
    shown_length_max = 100
    return repr(raw_path[:shown_length_max])


def _served() -> str:
    return ", ".join(f"{route.method} {route.path}" for route in (*ROUTES, MODEL, KEY))
