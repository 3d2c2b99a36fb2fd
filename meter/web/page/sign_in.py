"""Signing in with a token, and out again."""

from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, URLEncodedBody

from meter.core.errors import InvalidAdminToken, MeteringUnavailable, NotPermitted, TooManyFailures
from meter.web.access import FOR_ANYBODY, FOR_VISITORS, SESSION_COOKIE, origin_of, visitor_of
from meter.web.page.faults import FAULTS
from meter.web.page.forms import FORM_COOKIE, START, AnyRequest, check_origin, cookie, local, no_session
from meter.web.page.rendering import page, to
from meter.web.sessions import Sessions, new_id

_FORM_SECONDS = 3600
_WRONG = "This token is not valid. It may have been revoked, or have expired."
_AWAY = "The database is away, so that only the admin token of the data directory works now. Try again soon."
_LOST = (
    "The form had expired, or the browser did not keep its cookie: sign in once more. Browsers keep it over "
    "HTTPS, and at http://localhost and http://127.0.0.1 only."
)


class SignIn(msgspec.Struct):
    """The form for signing in."""

    token: str = ""
    form: str = ""
    """What ties it to the browser that it was shown to."""
    next: str = START
    """Where to go then."""


class SignOut(msgspec.Struct):
    """The button for signing out."""

    form: str = ""


class SignInController(Controller):
    """Leads people to the page, in, and out."""

    include_in_schema = False
    exception_handlers = FAULTS
    opt = FOR_ANYBODY

    @get("/", sync_to_thread=False)
    def begin(self) -> Response[str]:
        """Lead a browser to the page."""
        return to(START)

    @get("/sign-in", sync_to_thread=True)
    def ask(
        self,
        request: AnyRequest,
        sessions: NamedDependency[Sessions],
        next: FromQuery[str] = START,  # noqa: A002 (the parameter's name)
    ) -> Response[str]:
        """Ask for a token."""
        return _form(request, sessions, next)

    @post("/sign-in")
    async def sign_in(
        self, request: AnyRequest, data: URLEncodedBody[SignIn], sessions: NamedDependency[Sessions]
    ) -> Response[str]:
        """Begin a session, if the token is one."""
        check_origin(request)
        browser = request.cookies.get(FORM_COOKIE, "")
        if not browser or not sessions.is_form_token(data.form, browser):
            return _form(request, sessions, data.next, _LOST, 403)
        try:
            made = await sessions.begin(data.token.strip(), *origin_of(request))
        except InvalidAdminToken:
            return _form(request, sessions, data.next, _WRONG, 401)
        except (NotPermitted, TooManyFailures) as refusal:
            return _form(request, sessions, data.next, refusal.message, refusal.status)
        except MeteringUnavailable as refusal:
            return _form(request, sessions, data.next, _AWAY, refusal.status)
        # The session's own id takes the place of the browser's.
        cookies = [
            cookie(SESSION_COOKIE, made, int(sessions.lasts.total_seconds())),
            cookie(FORM_COOKIE, "", 0),
        ]
        return to(local(data.next), cookies=cookies)

    @post("/sign-out", opt=FOR_VISITORS, sync_to_thread=False)
    def sign_out(
        self, request: AnyRequest, data: URLEncodedBody[SignOut], sessions: NamedDependency[Sessions]
    ) -> Response[str]:
        """End the session."""
        check_origin(request)
        if not sessions.is_form_token(data.form, visitor_of(request).session_id):
            raise NotPermitted("This form is not one of your session's. Open the page anew, and try again.")
        sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        return to("/sign-in", cookies=[no_session()])


def _form(
    request: AnyRequest, sessions: Sessions, leads_to: str, fault: str | None = None, status: int = 200
) -> Response[str]:
    browser = request.cookies.get(FORM_COOKIE) or new_id()
    context: dict[str, Any] = {
        "form": sessions.form_token(browser),
        "next": local(leads_to),
        "fault": fault,
    }
    cookies = [cookie(FORM_COOKIE, browser, _FORM_SECONDS)]
    return page("sign_in.html", context, status=status, cookies=cookies)
