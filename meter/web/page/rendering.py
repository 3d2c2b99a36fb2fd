"""Pages as responses: templates that escape whatever they are given, under a policy that runs nothing else.

Pages are rendered where they are put together, which is a thread: a large table takes milliseconds that the
event loop does not have.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from litestar import MediaType, Response
from litestar.datastructures import Cookie

from meter.late import Late

if TYPE_CHECKING:
    from meter.web.page import templating
else:
    templating = Late("meter.web.page.templating")

POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not `no-referrer`, by which a form's own Origin would be null.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def page(
    name: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    cookies: Sequence[Cookie] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[str]:
    """Render a template."""
    written = templating.ENVIRONMENT.get_template(name).render(context)
    return Response(
        written,
        status_code=status,
        media_type=MediaType.HTML,
        headers=HEADERS | dict(headers or {}),
        cookies=list(cookies),
    )


def to(address: str, *, cookies: Sequence[Cookie] = ()) -> Response[str]:
    """Lead a browser on; after a form, too, it asks for the address by GET."""
    return Response("", status_code=303, headers=HEADERS | {"location": address}, cookies=list(cookies))


message = partial(page, "message.html")
