"""What was found is shown with every number of both sides, and with a sentence that helps."""

from typing import Any

import pytest

from meter.core.findings import COLUMNS, as_json, columns, rows, tally
from meter.core.money import parse_usd
from meter.core.reconcile import Bill, Billed, Finding, Recorded, TierCosts, judge, pair, total
from meter.core.rollup import Sums

DAY = "2026-11-01"


def ours(model: str = "gpt-4.1", day: str = DAY, **fields: Any) -> Recorded:
    """Give what the ledger has of a day: 1,000 prompt tokens and 100 of completion for 0.0042 USD."""
    values: dict[str, Any] = {
        "requests": 3,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "cost": 4200000000,
    }
    return Recorded(day, model, Sums(**values | fields))


def theirs(model: str = "gpt-4.1", day: str = DAY, **fields: Any) -> Billed:
    """Give a bill's line of the same."""
    values: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "cost": parse_usd("0.0042")}
    return Billed(day=day, model=model, **values | fields)


def compare(billed: list[Billed], recorded: list[Recorded], costs: TierCosts | None = None) -> list[Finding]:
    """Compare a bill with a ledger."""
    return [judge(case, costs) for case in pair(Bill(tuple(billed), 12), recorded)]


@pytest.mark.parametrize(
    ("billed", "recorded", "costs", "sentence"),
    [
        (theirs(), ours(), None, ""),
        (theirs(), None, None, "without meter"),
        (theirs(requests=7), None, None, "They bill this for 7 requests"),
        (None, ours(), None, "--upstream"),
        (None, ours(estimated_tokens=1100), None, "only estimated"),
        (theirs(cost=1), ours(), None, "meter prices list"),
        (theirs(cost=1), ours(), TierCosts({"flex": 1}, frozenset({""})), "the tier flex"),
        (theirs(cost=1), ours(), TierCosts({"": 1}, frozenset({"flex"})), "the tier standard"),
        (theirs(cost=1), ours(), TierCosts({"a": 1, "b": 1, "c": 2}, frozenset({"c"})), "the tier a or b:"),
        (theirs(cost=1), ours(), TierCosts({"": 1}, frozenset({""})), "meter prices reprice"),
        (theirs(cost=1), ours(cost=0, unpriced_requests=3), None, "3 of our requests have no price"),
        (theirs(cached_tokens=7), ours(cached_tokens=9), None, "2 fewer cached"),
        (theirs(cache_write_tokens=7), ours(), None, "7 more written to a cache"),
        (theirs(prompt_tokens=990), ours(estimated_tokens=12), None, "12 of our tokens are estimates"),
        (theirs(prompt_tokens=990), ours(), None, "--tz"),
        (theirs(prompt_tokens=990, requests=5), ours(), None, "2 requests more"),
        (theirs(prompt_tokens=990, requests=2), ours(), None, "1 requests fewer"),
        (theirs(prompt_tokens=600), ours(cached_tokens=300, cache_write_tokens=100), None, "leave out"),
        (theirs(reasoning_tokens=9), ours(), None, "nothing to pay"),
    ],
)
def test_every_finding_says_what_to_do(
    billed: Billed | None, recorded: Recorded | None, costs: TierCosts | None, sentence: str
) -> None:
    """The sentence of a finding names what to look at or to run; what is ok needs none."""
    (row,) = rows(compare([billed] if billed else [], [recorded] if recorded else [], costs))

    assert sentence in row.advice
    assert bool(row.advice) is bool(sentence)


def test_named_tiers_are_shown() -> None:
    """Where a bill names other tiers than the answers did, both are shown with their tokens."""
    recorded = Recorded(DAY, "gpt-4.1", ours().sums, "flex")

    (row,) = rows(compare([theirs(service_tier="default")], [recorded]))

    assert "They bill the tier standard (1100 tokens), and the answers named flex (1100 tokens)" in row.advice


def test_days_that_begin_at_another_hour() -> None:
    """Tokens that agree over all days and not day by day are a matter of the time zone."""
    recorded = [ours(day=f"2026-11-0{day}", prompt_tokens=100 * day) for day in (1, 2, 3)]
    billed = [
        theirs(day=f"2026-11-0{day}", prompt_tokens=tokens) for day, tokens in ((1, 150), (2, 250), (3, 200))
    ]

    found = rows(compare(billed, recorded))

    assert all("--tz" in row.advice and "Over all days" in row.advice for row in found)


def test_names_that_cannot_be_told_apart_are_said() -> None:
    """Lines that were compared together, for want of names in the ledger, are named."""
    billed = [theirs("gpt-4o-2024-05-13", cost=1), theirs("gpt-4o-2024-08-06")]

    (row,) = rows(compare(billed, [ours("gpt-4o")]))

    assert "Their gpt-4o-2024-05-13 + gpt-4o-2024-08-06 are compared together" in row.advice


def test_a_row_shows_both_sides() -> None:
    """Every count of both sides and their difference is there, amounts to the last digit."""
    (row,) = rows(compare([theirs(prompt_tokens=1001, cached_tokens=5, cost=4200000001)], [ours()]))

    found = columns(row)

    assert tuple(found) == COLUMNS
    assert (found["their_prompt_tokens"], found["our_prompt_tokens"], found["difference_prompt_tokens"]) == (
        1001,
        1000,
        1,
    )
    assert (found["their_requests"], found["our_requests"], found["difference_requests"]) == (None, 3, None)
    assert found["their_cost_usd"] == "0.004200000001"
    assert found["our_cost_usd"] == "0.004200"
    assert found["difference_cost_usd"] == "0.000000000001"
    assert found["class"] == "tokens"


def test_an_unknown_cost_is_no_zero() -> None:
    """A side that is not there, or has no price, has no amount."""
    (unpriced,) = rows(compare([theirs()], [ours(cost=0, unpriced_requests=3)]))
    (missing,) = rows(compare([theirs()], []))

    assert columns(unpriced)["our_cost_usd"] is None
    assert columns(missing)["our_cost_usd"] is None
    assert columns(missing)["difference_cost_usd"] == "0.004200"


def test_the_document_for_programs() -> None:
    """The JSON document has all rows, what they come to, and how many there are of each class."""
    findings = compare([theirs(), theirs("o3", cost=10**12)], [ours()])

    document = as_json(rows(findings), total(findings), within_tolerance=False)

    assert [row["model"] for row in document["rows"]] == ["gpt-4.1", "o3"]
    assert document["total"] == {
        "their_cost_usd": "1.004200",
        "our_cost_usd": "0.004200",
        "differing_cost_usd": "1.000000",
        "within_tolerance": False,
        "classes": {"ok": 1, "missing_here": 1},
    }
    assert tally([]) == {}
