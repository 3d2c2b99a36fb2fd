"""Signing in as a browser does, but for the cookie jar, which keeps secure cookies from plain HTTP."""

import re
from http.cookies import SimpleCookie
from typing import Any, NamedTuple

import httpx

from meter.web.access import SESSION_COOKIE
from meter.web.page.forms import FORM_COOKIE

SAME_SITE = {"sec-fetch-site": "same-origin"}


class Visit(NamedTuple):
    """A session."""

    header: str
    """What a browser sends as `cookie`; empty where nobody could sign in."""
    form: str
    """What its forms carry."""


def cookies_of(answer: Any) -> SimpleCookie:
    """Return the cookies that an answer sets."""
    found = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        found.load(line)
    return found


def form_of(text: str) -> str:
    """Return what the forms of a page carry."""
    found = re.search(r'name="form" value="([^"]*)"', text)
    return found[1] if found else ""


def sign_in(client: httpx.Client, token: str, **changes: str) -> httpx.Response:
    """Fill in the form for signing in, and send it."""
    form = client.get("/sign-in")
    browser = cookies_of(form)[FORM_COOKIE].value
    headers = SAME_SITE | {"cookie": f"{FORM_COOKIE}={browser}"}
    data = {"token": token, "form": form_of(form.text)} | changes
    return client.post("/sign-in", data=data, headers=headers, follow_redirects=False)


def session_cookie(client: httpx.Client, token: str) -> Visit:
    """Sign in; returns what the browser has then."""
    given = cookies_of(sign_in(client, token)).get(SESSION_COOKIE)
    if given is None:
        return Visit("", "")
    header = f"{SESSION_COOKIE}={given.value}"
    return Visit(header, form_of(client.get("/spend/events", headers={"cookie": header}).text))
