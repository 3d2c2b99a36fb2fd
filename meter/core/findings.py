"""What a comparison with a bill found, as rows, and in a sentence each what to do about it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meter.core.matching import Names
from meter.core.money import Picodollars, format_usd
from meter.core.reconcile import COUNTED, Case, Difference, Finding, Side, Total

SIDES = ("their", "our")
# The columns of every output, in order.
COLUMNS = (
    "day",
    "model",
    "their_models",
    "our_models",
    "class",
    *(f"{side}_{name}" for name in COUNTED for side in (*SIDES, "difference")),
    *(f"{side}_cost_usd" for side in (*SIDES, "difference")),
    "unreported_tokens",
    "unpriced_requests",
    "advice",
)
STANDARD = "standard"


class Row(msgspec.Struct, frozen=True):
    """One finding, with its sentence."""

    finding: Finding
    advice: str


def rows(findings: Iterable[Finding]) -> list[Row]:
    """Put a sentence to each finding; some of them need all days to be told."""
    found = list(findings)
    shifted = _shifted(found)
    return [Row(finding, _advice(finding, shifted=finding.case.names in shifted)) for finding in found]


def columns(row: Row) -> dict[str, Any]:
    """Return a row as it is shown: counts, and amounts as decimal strings in USD; `None` is not known."""
    case = row.finding.case
    values: dict[str, Any] = {
        "day": case.day,
        "model": model(case),
        "their_models": list(case.names.theirs),
        "our_models": list(case.names.ours),
        "class": row.finding.difference.value,
        "their_cost_usd": cost_usd(case.theirs),
        "our_cost_usd": cost_usd(case.ours),
        "difference_cost_usd": usd(case.difference),
        "unreported_tokens": case.ours.unreported_tokens if case.ours else 0,
        "unpriced_requests": case.ours.unpriced_requests if case.ours else 0,
        "advice": row.advice,
    }
    for name in COUNTED:
        values[f"their_{name}"] = None if case.theirs is None else getattr(case.theirs, name)
        values[f"our_{name}"] = None if case.ours is None else getattr(case.ours, name)
        values[f"difference_{name}"] = case.more(name)
    return {name: values[name] for name in COLUMNS}


def as_json(shown: Iterable[Row], total: Total, *, within_tolerance: bool) -> dict[str, Any]:
    """Return a comparison as the JSON document that the command line gives."""
    found = list(shown)
    return {
        "rows": [columns(row) for row in found],
        "total": {
            "their_cost_usd": usd(total.theirs),
            "our_cost_usd": usd(total.ours),
            "differing_cost_usd": usd(total.differing),
            "within_tolerance": within_tolerance,
            "classes": tally(found),
        },
    }


def tally(shown: Iterable[Row]) -> dict[str, int]:
    """Count the rows of each class, those that occur."""
    counts = dict.fromkeys((each.value for each in Difference), 0)
    for row in shown:
        counts[row.finding.difference.value] += 1
    return {name: count for name, count in counts.items() if count}


def model(case: Case) -> str:
    """Name a case: as the bill does, else as the ledger does."""
    return " + ".join(case.names.theirs or case.names.ours)


def cost_usd(side: Side | None) -> str | None:
    """Return the cost of a side; `None` where it is unknown, or where there is no side."""
    unknown = side is None or (side.unpriced_requests and not side.cost)
    return None if side is None or unknown else usd(side.cost)


def usd(amount: int) -> str:
    """Write an amount in USD."""
    return format_usd(Picodollars(amount))


def _shifted(findings: Iterable[Finding]) -> set[Names]:
    """Find the models whose tokens agree over all days, but not day by day."""
    added: dict[Names, list[int]] = {}
    differing: set[Names] = set()
    for finding in findings:
        case = finding.case
        off = [case.more(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
        added[case.names] = [sum(each) for each in zip(added.get(case.names, [0, 0]), off, strict=True)]
        differing |= {case.names} if any(off) else set()
    return {names for names in differing if not any(added[names])}


def _advice(finding: Finding, *, shifted: bool) -> str:
    case = finding.case
    sentence = _SENTENCES[finding.difference](finding)
    if shifted and finding.difference in _OF_TOKENS:
        sentence = (
            "Over all days the tokens of this model agree: their days begin at another hour; "
            "name their time zone with --tz."
        )
    if finding.difference is not Difference.OK and case.names.ambiguous and case.ours is not None:
        ours, theirs = " + ".join(case.names.ours), " + ".join(case.names.theirs)
        sentence += f" Their {theirs} are compared together: the ledger has only {ours}."
    return sentence


_OF_TOKENS = (
    Difference.TOKENS,
    Difference.MISSING_HERE,
    Difference.MISSING_THERE,
    Difference.ESTIMATED,
)


def _missing_here(finding: Finding) -> str:
    theirs = finding.case.theirs
    requests = "" if theirs is None or theirs.requests is None else f" for {theirs.requests} requests"
    return (
        f"They bill this{requests} and meter has no event of it: look for programs that use the provider's "
        "key without meter, and for another name of the model (--alias THEIRS=OURS)."
    )


def _missing_there(finding: Finding) -> str:
    ours = finding.case.ours or Side()
    if ours.unreported_tokens == ours.total_tokens:
        return "meter has only estimated this, and they do not bill it: nothing was used, or it will come."
    return (
        "meter has events that they do not bill: see that the file is complete and of this upstream "
        "(--upstream), and look for another name of the model (--alias THEIRS=OURS)."
    )


def _price(finding: Finding) -> str:
    ours = finding.case.ours or Side()
    if ours.unpriced_requests:
        return (
            f"{ours.unpriced_requests} of our requests have no price: set one with 'meter prices set', "
            "then 'meter prices reprice'."
        )
    if finding.tiers:
        return "Today's price book comes to their amount: rate this again with 'meter prices reprice'."
    return (
        "The tokens agree and the price does not: compare theirs with 'meter prices list', correct ours with "
        "'meter prices set' and 'meter prices reprice', or ask them for a credit."
    )


def _cached(finding: Finding) -> str:
    case = finding.case
    parts = [
        f"{abs(more)} {'more' if more > 0 else 'fewer'} {what}"
        for name, what in (("cached_tokens", "cached"), ("cache_write_tokens", "written to a cache"))
        if (more := case.more(name))
    ]
    return (
        f"They count {' and '.join(parts)} of the same prompt: an answer may have come without its cache's "
        "counts; where they bill writes that no answer shows, our cost is the lower bound."
    )


def _tier(finding: Finding) -> str:
    if not finding.tiers:
        ours, theirs = (_tiers(side) for side in (finding.case.ours, finding.case.theirs))
        return f"They bill the tier {theirs}, and the answers named {ours}: ask them which was served."
    tiers = " or ".join(tier or STANDARD for tier in finding.tiers)
    return (
        f"Their amount is that of the tier {tiers}: compare with the service_tier that "
        "the answers named ('meter explain EVENT'), and ask them which was served."
    )


def _tiers(side: Side | None) -> str:
    tiers = side.tiers if side is not None and side.tiers is not None else frozenset[tuple[str, int]]()
    return " and ".join(sorted(f"{name or STANDARD} ({tokens} tokens)" for name, tokens in tiers)) or STANDARD


def _estimated(finding: Finding) -> str:
    ours = finding.case.ours or Side()
    return (
        f"{ours.unreported_tokens} of our tokens are estimates, which explains the difference: theirs count. "
        "'stream_usage = ensure' and a longer grace for hang-ups make fewer estimates."
    )


def _tokens(finding: Finding) -> str:
    case = finding.case
    if case.theirs is not None and case.ours is not None and _apart(case.theirs, case.ours):
        return (
            "Their prompt_tokens leave out what was cached or written to a cache: "
            "add those to prompt_tokens in the file."
        )
    if not case.more("prompt_tokens") and not case.more("completion_tokens"):
        return "Only the reasoning tokens differ, which cost what other completion tokens do: nothing to pay."
    requests = case.more("requests") or 0
    if requests > 0:
        return f"They count {requests} requests more: look for programs that use their key without meter."
    if requests < 0:
        return f"They count {-requests} requests fewer: see that the file is complete, and of the same days."
    return (
        "The tokens differ and nothing explains it: see that the file is of the same days (--tz) and of this "
        "upstream (--upstream), and ask them for the requests behind it."
    )


def _apart(theirs: Side, ours: Side) -> bool:
    """Say whether their prompt tokens are ours without those of the cache."""
    cached = (ours.cached_tokens or 0) + (ours.cache_write_tokens or 0)
    return (
        bool(cached)
        and theirs.prompt_tokens + cached == ours.prompt_tokens
        and theirs.completion_tokens == ours.completion_tokens
    )


_SENTENCES: Mapping[Difference, Callable[[Finding], str]] = {
    Difference.OK: lambda _: "",
    Difference.MISSING_HERE: _missing_here,
    Difference.MISSING_THERE: _missing_there,
    Difference.PRICE: _price,
    Difference.CACHED: _cached,
    Difference.TIER: _tier,
    Difference.ESTIMATED: _estimated,
    Difference.TOKENS: _tokens,
}
