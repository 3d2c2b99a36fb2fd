"""The templates of the pages, and the names that they know."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from meter.core.reports import cost_usd, estimated_share
from meter.web.page import assets, words


def _environment() -> Environment:
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


ENVIRONMENT = _environment()
