"""A bill and the ledger: what agrees is ok, and each planted difference gets its class."""

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.money import parse_usd
from meter.core.prices import Price, PriceBook, Rates, rate
from meter.core.reconcile import (
    Bill,
    Billed,
    Case,
    Difference,
    Finding,
    Recorded,
    TierCosts,
    Total,
    costs_by_tier,
    in_order,
    judge,
    needs_tier_costs,
    pair,
    parse_tolerance,
    total,
)
from meter.core.rollup import Sums

EXACT = 12
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

counts = st.integers(0, 10**9)


@st.composite
def sums(draw: st.DrawFn) -> Sums:
    """Draw what a ledger has of a day and a model: all of it reported and priced."""
    prompt, completion = draw(counts), draw(counts)
    return Sums(
        requests=draw(st.integers(1, 1000)),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=draw(st.integers(0, prompt)),
        cache_write_tokens=draw(st.integers(0, prompt)),
        reasoning_tokens=draw(st.integers(0, completion)),
        cost=draw(st.integers(0, 10**16)),
    )


recorded = st.builds(
    Recorded,
    st.sampled_from(["2026-11-01", "2026-11-02", "2026-11-03"]),
    st.sampled_from(["gpt-4.1", "gpt-4.1-2025-04-14", "anthropic/claude-sonnet-4"]),
    sums(),
    st.sampled_from(["", "flex", "default"]),
)
ledgers = st.lists(
    recorded, min_size=1, max_size=6, unique_by=lambda line: (line.day, line.model, line.service_tier)
)


def billed(line: Recorded, **changes: Any) -> Billed:
    """Write a line of the ledger as a bill would."""
    values = {name: getattr(line.sums, name) for name in Billed.__struct_fields__ if hasattr(line.sums, name)}
    values |= {"day": line.day, "model": line.model, "service_tier": line.service_tier}
    return Billed(**values | changes)


def one(**fields: Any) -> Recorded:
    """Give what the ledger has of one day: 1,000 prompt tokens and 100 of completion for 0.0042 USD."""
    values = {"requests": 3, "prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 400}
    amounts = {"reasoning_tokens": 50, "cost": parse_usd("0.0042")}
    return Recorded("2026-11-01", "gpt-4.1", Sums(**values | amounts | fields))


def compare(theirs: list[Billed], ours: list[Recorded], decimals: int = EXACT) -> list[Finding]:
    """Compare a bill with a ledger, without prices of other tiers."""
    return [judge(case, None) for case in pair(Bill(tuple(theirs), decimals), ours)]


def classes(theirs: list[Billed], ours: list[Recorded], decimals: int = EXACT) -> list[str]:
    """Return the classes of a comparison."""
    return [finding.difference.value for finding in compare(theirs, ours, decimals)]


@given(ledgers)
def test_the_ledger_as_a_bill_is_ok(ledger: list[Recorded]) -> None:
    """A bill made of the ledger itself has no difference at all, whatever it leaves out."""
    exact = compare([billed(line) for line in ledger], ledger)
    silent = dict.fromkeys(("cached_tokens", "cache_write_tokens", "reasoning_tokens", "requests"))

    bare = compare([billed(line, **silent, service_tier=None) for line in ledger], ledger)

    for findings in (exact, bare):
        assert {finding.difference for finding in findings} <= {Difference.OK}
        assert total(findings).differing == 0
        assert total(findings).within(Fraction(0))
        assert total(findings).theirs == sum(line.sums.cost for line in ledger)


PLANTED: dict[str, Callable[[Billed], Billed]] = {
    "price": lambda line: msgspec.structs.replace(line, cost=line.cost + 1),
    "cached": lambda line: msgspec.structs.replace(line, cached_tokens=(line.cached_tokens or 0) + 1),
    "tokens": lambda line: msgspec.structs.replace(line, completion_tokens=line.completion_tokens + 1),
    "tier": lambda line: msgspec.structs.replace(line, service_tier="priority"),
    "missing_here": lambda line: msgspec.structs.replace(line, model="o3", cost=1),
}


@pytest.mark.parametrize("planted", PLANTED)
@settings(max_examples=30, deadline=None)
@given(ledgers, st.data())
def test_a_planted_difference_gets_its_class(
    planted: str, ledger: list[Recorded], data: st.DataObject
) -> None:
    """One change to one line of a bill is found under its name, and all else stays ok."""
    lines = [billed(line) for line in ledger]
    at = data.draw(st.integers(0, len(lines) - 1))
    assume(ledger[at].sums.total_tokens)
    lines[at] = PLANTED[planted](lines[at])

    found = {finding.difference.value for finding in compare(lines, ledger)} - {"ok"}

    # A line under another name is missing on both sides, or lacking where others stand beside it.
    also = {"missing_there", "tokens"} if planted == "missing_here" else set()
    assert planted in found
    assert found <= {planted} | also


@given(ledgers, st.data())
def test_a_line_that_is_left_out_is_missing_there(ledger: list[Recorded], data: st.DataObject) -> None:
    """What the bill leaves out of a day is missing there, and counts as a difference by its whole cost."""
    gone = data.draw(st.sampled_from([(line.day, line.model) for line in ledger]))
    left = [billed(line) for line in ledger if (line.day, line.model) != gone]
    lost = sum(line.sums.cost for line in ledger if (line.day, line.model) == gone)
    assume(not any("gpt" in line.model for line in left) or "claude" in gone[1])

    findings = compare(left, ledger)

    assert total(findings).differing == lost
    assert {finding.difference.value for finding in findings} <= {"ok", "missing_there"}


@pytest.mark.parametrize(
    ("ours", "changes", "expected"),
    [
        (one(), {}, "ok"),
        (one(), {"requests": 99}, "ok"),
        (one(), {"cost": parse_usd("0.0042") + 1}, "price"),
        (one(), {"cost": 0}, "price"),
        (one(cost=0, unpriced_requests=3, unpriced_tokens=1100), {"cost": 0}, "price"),
        (one(), {"cached_tokens": 0, "cost": parse_usd("0.0054")}, "cached"),
        (one(), {"cache_write_tokens": 7}, "cached"),
        (one(), {"prompt_tokens": 600}, "tokens"),
        (one(), {"reasoning_tokens": 0}, "tokens"),
        (one(estimated_tokens=50), {"completion_tokens": 90, "prompt_tokens": 1040}, "estimated"),
        (one(invalid_tokens=49), {"completion_tokens": 90, "prompt_tokens": 1040}, "tokens"),
        (one(invalid_tokens=30, estimated_tokens=20), {"prompt_tokens": 950}, "estimated"),
        (one(estimated_tokens=1100), {"cost": 0}, "price"),
    ],
)
def test_classes(ours: Recorded, changes: dict[str, Any], expected: str) -> None:
    """Each kind of difference has its class; how many requests there were is shown and not judged."""
    assert classes([billed(ours, **changes)], [ours]) == [expected]


def test_a_day_that_one_side_lacks() -> None:
    """What stands on one side only is missing on the other; what nobody used or billed is left out."""
    failures = Recorded("2026-11-01", "made-up", Sums(requests=9, errors=9))

    assert classes([], [one(), failures]) == ["missing_there"]
    assert classes([billed(one())], [failures]) == ["missing_here"]
    assert classes([billed(one(), prompt_tokens=0, completion_tokens=0, cost=0)], []) == []


def test_lines_of_one_day_and_model_add_up() -> None:
    """A bill by key or by tier has several lines of a day, and so has the ledger."""
    half = billed(one(), prompt_tokens=500, cached_tokens=200, completion_tokens=50, cost=parse_usd("0.0021"))
    half = msgspec.structs.replace(half, reasoning_tokens=25)

    assert classes([half, half], [one()]) == ["ok"]
    assert classes([billed(one(), cached_tokens=None)], [one()]) == ["ok"]
    # Where one line does not tell a count, the sum is not known either.
    assert classes([half, msgspec.structs.replace(half, cached_tokens=None)], [one()]) == ["ok"]


@pytest.mark.parametrize(
    ("theirs", "decimals", "expected"),
    [
        ("0.00", 2, "ok"),
        ("0.00", 0, "ok"),
        ("0.01", 2, "price"),
        ("0.004", 3, "ok"),
        ("0.005", 3, "price"),
        ("0.0042", 4, "ok"),
        ("0.0043", 12, "price"),
        ("0.004200000001", 12, "price"),
        ("0.0042", 17, "ok"),
    ],
)
def test_amounts_agree_as_far_as_the_bill_writes_them(theirs: str, decimals: int, expected: str) -> None:
    """A bill rounded to cents agrees with what rounds to the same cents, and nothing further off does."""
    assert classes([billed(one(), cost=parse_usd(theirs))], [one()], decimals) == [expected]


def test_each_line_of_a_bill_is_rounded_by_itself() -> None:
    """Two rounded lines may be off by twice as much."""
    ours = one(cost=parse_usd("0.029"))
    half = billed(ours, prompt_tokens=500, cached_tokens=200, completion_tokens=50, reasoning_tokens=25)

    assert classes([msgspec.structs.replace(half, cost=parse_usd("0.01"))] * 2, [ours], 2) == ["ok"]
    assert classes([billed(ours, cost=parse_usd("0.02"))], [ours], 2) == ["price"]


def test_binary_floats_agree_to_a_millionth_of_a_millionth() -> None:
    """Costs written with more digits than there are have been floats, whose last digits mean nothing."""
    ours = one(cost=parse_usd("12345.678"))

    assert classes([billed(ours, cost=parse_usd("12345.678000001"))], [ours], 17) == ["ok"]
    assert classes([billed(ours, cost=parse_usd("12345.6781"))], [ours], 17) == ["price"]
    assert classes([billed(ours, cost=parse_usd("12345.678000001"))], [ours], 12) == ["price"]


def version(tier: str, rates: Rates, number: int = 1) -> Price:
    """Make a price of a tier."""
    return Price(
        id=number,
        catalog="",
        model="gpt-4.1",
        service_tier=tier,
        effective_from=datetime(2020, 1, 1, tzinfo=UTC),
        rates=rates,
        source="set",
        created_at=NOON,
    )


def event(tier: str | None = None, **fields: Any) -> UsageEvent:
    """Make an event of 1,000 prompt and 100 completion tokens."""
    values: dict[str, Any] = {
        "event_id": "019ab1c2-0000-7000-8000-000000000000",
        "started_at": NOON,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "upstream",
        "model_requested": "gpt-4.1",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "service_tier": tier,
    }
    return UsageEvent(**values | fields)


BOOK = PriceBook(
    [
        version("", Rates(prompt=2, completion=8)),
        version("flex", Rates(prompt=1, completion=4), 2),
        version("priority", Rates(prompt=4), 3),
    ]
)


def test_costs_in_each_tier() -> None:
    """Events have a cost in every tier that has a price for all of them, and only what was used counts."""
    nothing = event("scale", usage_source=UsageSource.NONE)

    found = costs_by_tier([event(), event("default"), nothing], BOOK, ["", "flex", "priority", "scale"])

    assert found == TierCosts({"": 5600, "flex": 2800}, frozenset({""}))


@pytest.mark.parametrize(
    ("served", "recorded_cost", "billed_cost", "expected", "tiers"),
    [
        ([None, None], 5600, 2800, Difference.TIER, ("flex",)),
        (["flex", "flex"], 2800, 5600, Difference.TIER, ("",)),
        ([None, "flex"], 4200, 5600, Difference.TIER, ("",)),
        ([None, "flex"], 4200, 2800, Difference.TIER, ("flex",)),
        ([None, None], 5600, 2801, Difference.PRICE, ()),
        # The book has changed since: not another tier, but another price.
        ([None, None], 9999, 5600, Difference.PRICE, ("",)),
    ],
)
def test_the_price_of_another_tier(
    served: list[str | None],
    recorded_cost: int,
    billed_cost: int,
    expected: Difference,
    tiers: tuple[str, ...],
) -> None:
    """An amount that another tier comes to is a difference of the tier; else it is one of the price."""
    events = [rate(event(each), BOOK) for each in served]
    ours = Recorded(
        "2026-11-23",
        "gpt-4.1",
        Sums(requests=2, prompt_tokens=2000, completion_tokens=200, cost=recorded_cost),
    )
    (case,) = pair(Bill((billed(ours, cost=billed_cost),), EXACT), [ours])

    assert needs_tier_costs(case)
    assert judge(case, costs_by_tier(events, BOOK, ["", "flex", "priority"])) == Finding(
        case, expected, tiers
    )


def test_tiers_that_the_bill_names() -> None:
    """Where a bill tells the tier and the answers told another, that is said, whatever it costs."""
    ours = msgspec.structs.replace(one(), service_tier="flex")

    assert classes([billed(ours)], [ours]) == ["ok"]
    assert classes([billed(ours, service_tier="")], [ours]) == ["tier"]
    assert classes(
        [billed(one(), service_tier="default")], [msgspec.structs.replace(one(), service_tier="")]
    ) == ["ok"]


@pytest.mark.parametrize(
    ("tolerance", "within"), [("0.05", True), ("0.049", False), ("0", False), ("1", True)]
)
def test_the_tolerance_is_a_part_of_their_total(tolerance: str, within: bool) -> None:
    """Differences count without their signs, so that too much does not pay for too little."""
    findings = [
        finding
        for model, cost in (("a", 1010), ("b", 950), ("c", 240))
        for finding in compare(
            [billed(msgspec.structs.replace(one(), model=model), cost=cost)],
            [msgspec.structs.replace(one(cost={"a": 1000, "b": 1000, "c": 190}[model]), model=model)],
        )
    ]

    assert total(findings) == Total(theirs=2200, ours=2190, differing=110)
    assert total(findings).within(parse_tolerance(tolerance)) is within


def test_a_bill_of_nothing() -> None:
    """Where they bill nothing at all, any cost of ours is above every tolerance."""
    assert total([]).within(Fraction(0))
    assert not total(compare([], [one()])).within(Fraction(1))


@pytest.mark.parametrize("text", ["", "x", "-0.01", "1.01", "nan", "inf", "1e9", "1%"])
def test_a_tolerance_that_is_none(text: str) -> None:
    """A tolerance is a part of a whole."""
    with pytest.raises(ValueError, match=r"0\.01 is one percent"):
        parse_tolerance(text)


def test_the_largest_difference_comes_first() -> None:
    """Days stand in order, and within a day what differs most comes first."""
    ours = [
        Recorded(day, model, Sums(prompt_tokens=1, cost=cost))
        for day, model, cost in (("2026-11-02", "a", 1), ("2026-11-01", "b", 2), ("2026-11-01", "c", 3))
    ]

    found = [finding.case.names.ours[0] for finding in in_order(compare([], ours))]

    assert found == ["c", "b", "a"]


def test_what_a_side_does_not_tell_has_no_difference() -> None:
    """A count is compared where both sides tell it, and a side that is missing counts as none."""
    case: Case = compare([billed(one(), cached_tokens=None)], [one()])[0].case

    assert case.more("cached_tokens") is None
    assert case.more("prompt_tokens") == 0
    assert compare([], [one()])[0].case.more("cached_tokens") == -400
