"""Pages as responses: templates that escape whatever they are given, under a policy that runs nothing else.

Pages are rendered where they are put together, which is a thread: a large table takes milliseconds that the
event loop does not have.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Response
from litestar.datastructures import Cookie

from meter.core.reports import cost_usd, estimated_share
from meter.web.page import assets, words

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


def environment() -> Environment:
    """Return what pages are rendered by."""
    made = Environment(
        loader=PackageLoader("meter.web.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"split_usd": words.split_usd, "about_usd": words.about_usd, "number": "{:,}".format}
    made.globals |= {
        "cost_usd": cost_usd,
        "estimated_share": estimated_share,
        "share": words.share,
        "usd_of": words.usd,
        "named": words.named,
        "stylesheet": assets.address("page.css"),
        "script": assets.address("page.js"),
        "icon": assets.address("icon.svg"),
    }
    return made


_ENVIRONMENT = environment()


def page(
    name: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    cookies: Sequence[Cookie] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[str]:
    """Render a template."""
    written = _ENVIRONMENT.get_template(name).render(context)
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
