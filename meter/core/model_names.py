"""Under which names a model's price is looked for.

Names come bare (`gpt-4.1`), behind a vendor's prefix (`openai/gpt-4.1`), and with the date of a snapshot
behind them (`claude-sonnet-4-20250514`). Price lists know some of these. The rule, from the surest to the
least sure; the first that has a price counts:

1. the operator's own prices: for this upstream, then for any, under the whole name;
2. the list of the provider that the upstream is, by its host, under the whole name;
3. the list of the vendor that the prefix names, under the rest of the name;
4. OpenRouter's list, which prices models behind a prefix;
5. the vendors' own lists, in a fixed order, for a bare name.

Each of them is tried with the name as it is, and then without the date of a snapshot, written `-20250514` or
`-2025-04-14`. Nothing else is left off or guessed: `deepseek-chat-123` is not `deepseek-chat`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# The list of the operator's own prices.
OWN = ""
OPENROUTER = "openrouter"

# Prefixes, as RouterHub and OpenRouter write them, and the price list of the vendor that they name.
_VENDORS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "google": "google",
    "minimax": "minimax",
    "mistral": "mistral",
    "mistralai": "mistral",
    "moonshotai": "moonshotai",
    "openai": "openai",
    "perplexity": "perplexity",
    "x-ai": "x-ai",
    "xai": "x-ai",
    "z-ai": "zai",
    "zai": "zai",
}
# Where a bare name is looked for, in this order.
_BARE = tuple(dict.fromkeys(("openai", "anthropic", "google", *_VENDORS.values())))

_HOSTS: Mapping[str, str] = {
    "api.anthropic.com": "anthropic",
    "api.cerebras.ai": "cerebras",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.together.ai": "together",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "api.z.ai": "zai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": OPENROUTER,
}

# All lists that a name can lead to; prices of any other would never be found.
CATALOGS = frozenset({*_VENDORS.values(), *_HOSTS.values(), OPENROUTER})

_SNAPSHOT = re.compile(r"-(?:20\d{2}-\d{2}-\d{2}|20\d{6})$")


class Place(NamedTuple):
    """Where to look: a list, the upstream that its price is limited to, and a name."""

    catalog: str
    upstream: str
    model: str


def catalog_of(host: str) -> str | None:
    """Return the price list of the provider at a host; `None` for gateways and hosts that nobody knows."""
    return _HOSTS.get(host)


def vendor_of(prefix: str) -> str | None:
    """Return the price list of the vendor that a prefix names; `None` where nobody knows it."""
    return _VENDORS.get(prefix)


def places(model: str, upstream: str, catalog: str | None) -> Iterator[Place]:
    """Yield where the price of a model is to be looked for, the surest place first."""
    for spelling in _spellings(model):
        yield Place(OWN, upstream, spelling)
    for spelling in _spellings(model):
        yield Place(OWN, "", spelling)
    lists = ([(catalog, model)] if catalog else []) + list(_lists(model))
    for found, name in lists:
        for spelling in _spellings(name):
            yield Place(found, "", spelling)


def rule(place: Place, model: str, upstream: str, catalog: str | None) -> str | None:
    """Say in words by which rule a model's name leads to a place; `None` where none does."""
    if place not in places(model, upstream, catalog):
        return None
    prefix, _, rest = model.partition("/")
    whole = place.model in _spellings(model)
    if place.catalog == OWN:
        words = "the operator's own, for this upstream" if place.upstream else "the operator's own"
    elif whole and place.catalog == catalog:
        words = "the list of the provider that the upstream is"
    elif place.catalog == _VENDORS.get(prefix) and rest:
        words = f"the list of the vendor that the prefix {prefix}/ names"
    elif rest:
        words = "OpenRouter's list"
    else:
        words = "a vendor's list, by the bare name"
    dated = place.model not in (model, rest)
    return f"{words}, without the date of the snapshot" if dated else words


def _lists(model: str) -> Iterator[tuple[str, str]]:
    prefix, slash, rest = model.partition("/")
    if not slash:
        yield from ((vendor, model) for vendor in _BARE)
        return
    if prefix in _VENDORS:
        yield _VENDORS[prefix], rest
    yield OPENROUTER, model


def without_date(model: str) -> str:
    """Leave off the date of a snapshot."""
    return _SNAPSHOT.sub("", model)


def _spellings(model: str) -> tuple[str, ...]:
    undated = without_date(model)
    return (model,) if undated == model else (model, undated)
