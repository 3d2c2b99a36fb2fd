"""Paths and methods written in every odd way: a row of the table of routes, or nothing at all.

Everything is asked with a good key. What is answered otherwise than by 404 reaches one of the upstream's
paths that meter knows, and no other one.
"""

import pytest

from tests.fake_upstream import FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, length, request
from tests.server import Meter

OK = [response(b'{"choices":[]}')]
CHAT = "/v1/chat/completions"
NOT_FOUND = [
    "/",
    "//",
    "/v1",
    "/v1/",
    "/.",
    "/..",
    "/v1/.",
    "/v1/..",
    # Dots.
    "/v1/../admin",
    "/v1/../metrics",
    "/v1/../api/v1/keys",
    "/v1/./chat/completions",
    "/v1/chat/../chat/completions",
    "/v1/chat/completions/.",
    "/v1/chat/completions/..",
    "/v1/chat/completions/../completions",
    "/../v1/chat/completions",
    "/v1/chat/.../completions",
    "/v1/models/..",
    "/v1/models/../chat/completions",
    "/v1/models/./m",
    "/v1/models/.hidden",
    "/v1/models/a/..",
    "/v1/models/a/../b",
    "/v1/models/a/../../files",
    # Dots in other clothes.
    "/v1/%2e%2e/admin",
    "/v1/%2E%2E/admin",
    "/v1/.%2e/admin",
    "/v1/%2e/chat/completions",
    "/v1/%252e%252e/admin",
    "/v1/%c0%ae%c0%ae/admin",
    "/v1/%u002e%u002e/admin",
    "/v1/models/%2e%2e",
    "/v1/models/%2e%2e%2fadmin",
    "/v1/models/%2e%2e/%2e%2e/admin",
    "/v1/models/..%2fadmin",
    "/v1/models/..%2F..%2Fadmin",
    "/v1/models/..%5cadmin",
    "/v1/models/%252e%252e%252fadmin",
    "/v1/models/a%2f..%2fb",
    "/v1/models/a%2F%2e%2e%2Fb",
    "/v1/models/a%2f%2fb",
    "/v1/models/%2fetc%2fpasswd",
    # Slashes.
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "/v1/chat/completions/",
    "/v1/chat/completions//",
    "/v1%2fchat%2fcompletions",
    "/v1/chat%2Fcompletions",
    "/v1/chat%2fcompletions",
    "/%2fv1/chat/completions",
    "/v1/models/",
    "/v1/models//m",
    "/v1/models/m/",
    "/v1/models/m//n",
    "\\v1\\chat\\completions",
    "/v1\\chat\\completions",
    "/v1/chat\\completions",
    "/v1/chat%5ccompletions",
    "/v1/models/a\\b",
    "/v1/models/a%5Cb",
    # Parameters, and what else may stand in a path.
    "/v1/chat/completions;",
    "/v1/chat/completions;a=b",
    "/v1/chat;/completions",
    "/v1;/chat/completions",
    "/v1/..;/admin",
    "/v1/models/..;/admin",
    "/v1/models/m;a=b",
    "/v1/chat/completions%3b",
    "/v1/chat/completions%3fa=b",
    "/v1/chat/completions%23",
    "/v1/chat/completions&a=b",
    "/v1/chat/completions%26",
    "/v1/chat/completions.json",
    "/v1/chat/completions~",
    "/v1/chat/completions:cancel",
    "/v1/chat/completions@evil",
    "/v1/chat/completions%40evil",
    # Blanks and controls.
    "/v1/chat/completions%20",
    "/v1/chat/completions%09",
    "/v1/chat/completions%00",
    "/v1/chat/completions%00.json",
    "/v1/chat/completions%0d%0aX:y",
    "/%00/v1/chat/completions",
    "/v1/models/a%00b",
    "/v1/models/a%0ab",
    "/v1/models/a%0d%0ab",
    "/v1/models/a%20b",
    "/v1/models/a%3Fb",
    "/v1/models/a%23b",
    "/v1/models/a%25b",
    "/v1/models/%e2%80%ae",
    "/v1/models/%ff",
    # Other writings of a letter.
    "/V1/chat/completions",
    "/v1/Chat/completions",
    "/v1/CHAT/COMPLETIONS",
    "/v1/chat/%63ompletions",
    "/%76%31/chat/completions",
    "/v1/chat/completion%73",
    "/v1/chat/%ef%bd%83ompletions",
    "/v2/chat/completions",
    "/chat/completions",
    "/v1/v1/chat/completions",
    "/v1zzz/chat/completions",
    # Of the other listener, and of nobody.
    "/metrics",
    "/api/v1/keys",
    "/api/v1/openapi.json",
    "/spend",
    "/sign-in",
    "/schema",
    "/docs",
    "/openapi.json",
    "/health",
    "/health/",
    "/health/live/",
    "/health/../metrics",
    "/.env",
    "/.git/config",
    "/admin",
    "/*",
    "*",
]


@pytest.mark.parametrize("target", NOT_FOUND)
def test_a_path_is_a_route_or_nothing(target: str, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A path that only looks like a route is none, and reaches nothing, by POST and by GET."""
    upstream.answer(OK)

    post = f"POST {target} HTTP/1.1".encode()
    get = f"GET {target} HTTP/1.1".encode()
    found = raw.send(
        meter.url,
        request(holder, length(), start=post, closes=False) + BODY + request(holder, start=get),
    )

    assert set(raw.statuses(found)) <= {400, 404}
    assert found
    assert upstream.received == []


# What names a host or more than a path is read as the path that it has.
READ = [
    ("/v1/chat/completions?", CHAT),
    ("/v1/chat/completions?a=../../admin", f"{CHAT}?a=../../admin"),
    ("/v1/chat/completions?a=http://evil/", f"{CHAT}?a=http://evil/"),
    ("/v1/chat/completions?a=%0d%0aX:y", f"{CHAT}?a=%0d%0aX:y"),
    ("/v1/chat/completions?a=b?c=d", f"{CHAT}?a=b?c=d"),
    ("http://evil.example/v1/chat/completions", CHAT),
    ("http://evil.example:81/v1/chat/completions?a=b", f"{CHAT}?a=b"),
    ("https://169.254.169.254/v1/chat/completions", CHAT),
    ("http://user:password@evil.example/v1/chat/completions", CHAT),
]


@pytest.mark.parametrize(("target", "reached"), READ)
def test_what_else_is_in_a_target_leads_nowhere(
    target: str, reached: str, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """The upstream is the configured one and gets its own name and path, whoever is named in a target."""
    upstream.answer(OK)

    found = raw.send(meter.url, request(holder, length(), start=f"POST {target} HTTP/1.1".encode()) + BODY)

    (received,) = upstream.received
    assert raw.statuses(found) == [200]
    assert (received.method, received.target, received.body) == ("POST", reached, BODY)
    assert received.header("host") == f"127.0.0.1:{upstream.port}"


HOSTS = [
    b"evil.example",
    b"x/v1/chat/completions?",
    b"evil.example/admin#",
    b"127.0.0.1:8081",
    b"169.254.169.254",
    b"user@evil.example",
    b"",
    b"[::1",
    b"a b",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_decides_nothing(host: bytes, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """Neither the route nor the upstream depends on the Host that a client sends."""
    upstream.answer(OK)
    sent = request(holder, length(), host=b"Host: " + host + b"\r\n") + BODY
    elsewhere = request(holder, start=b"GET /metrics HTTP/1.1", host=b"Host: " + host + b"\r\n")

    found = raw.send(meter.url, sent)
    other = raw.send(meter.url, elsewhere)

    (received,) = upstream.received
    assert raw.statuses(found + other) == [200, 404]
    assert (received.target, received.header("host")) == (CHAT, f"127.0.0.1:{upstream.port}")
