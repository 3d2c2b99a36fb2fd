"""Explaining a cost: every summand, where its price is from, and every correction."""

from datetime import timedelta
from decimal import Decimal

import msgspec
from hypothesis import given

from meter.core.corrections import Account, Cause, Posted, judge
from meter.core.events import UsageEvent, UsageSource
from meter.core.explain import Explanation, Knowledge, explain
from meter.core.prices import Hours, LongContext, Price, PriceBook, Rates, rate
from meter.core.usage import ReportedUsage, normalise
from tests.core.test_prices import T, event, mtok, price, rates, reported

CAUSE = Cause("somebody@host", "the price was wrong")
USAGE: dict[str, object] = {
    "prompt_tokens": 1_000,
    "cached_tokens": 400,
    "cache_write_tokens": 100,
    "completion_tokens": 50,
}
DEAR = price(
    7,
    catalog="anthropic",
    model="claude",
    rates=Rates(
        prompt=mtok("3"), cached=mtok("0.3"), cache_write=mtok("3.75"), completion=mtok("15"), request=1_000
    ),
    long_context=(LongContext(above_tokens=200_000, rates=Rates(prompt=mtok("6"), completion=mtok("22.5"))),),
    source="genai-prices 0.2.3",
    created_by="meter",
    note="from the package",
)


def explained(account: Account, *versions: Price, catalogs: dict[str, str] | None = None) -> Explanation:
    """Explain an account by a book of these versions."""
    known = {version.id: version for version in versions}
    catalogs = catalogs or {}
    return explain(account, "search", "ci", Knowledge(known, PriceBook(versions, catalogs), catalogs))


def rated(*versions: Price, **fields: object) -> Account:
    """Make the account of an event that was rated by these versions."""
    return Account(Posted(rate(event(**USAGE | fields), PriceBook(versions)), T + timedelta(seconds=1)))


def corrected(account: Account, *versions: Price) -> Account:
    """Correct an account by a book of these versions."""
    made = judge(account, PriceBook(versions), CAUSE).correction
    assert made is not None
    return account._replace(corrections=(*account.corrections, Posted(made, T + timedelta(days=1))))


def test_every_summand_is_shown() -> None:
    """Each kind has its quantity, its rate and its amount, in exact decimal strings, and they add up."""
    found = explained(rated(DEAR, model_requested="anthropic/claude"), DEAR)

    assert found.rating is not None
    assert [msgspec.structs.astuple(item) for item in found.rating.items] == [
        ("prompt", 500, "3.000000", None, "0.001500"),
        ("cached", 400, "0.300000", None, "0.000120"),
        ("cache_write", 100, "3.750000", None, "0.000375"),
        ("completion", 50, "15.000000", None, "0.000750"),
        ("request", 1, None, "0.000000001", "0.000000001"),
    ]
    assert found.rating.sum_usd == found.recorded_cost_usd == found.cost_usd == "0.002745001"
    assert (found.team, found.team_id, found.key, found.key_id) == ("search", "team", "ci", "key")
    assert found.tokens["cached_tokens"] == 400
    assert found.posted_at == T + timedelta(seconds=1)
    assert (found.corrections, found.unpriced) == ([], None)


def test_the_version_is_shown_with_its_origin() -> None:
    """The version says whose list it is from, since when, who added it and by which rule it was found."""
    found = explained(rated(DEAR, model_requested="anthropic/claude-20251101"), DEAR)

    assert found.rating is not None
    version = found.rating.version
    assert version is not None
    assert (version.id, version.catalog, version.model) == (7, "anthropic", "claude")
    assert (version.source, version.created_by, version.note) == (
        "genai-prices 0.2.3",
        "meter",
        "from the package",
    )
    assert version.found_by == (
        "the list of the vendor that the prefix anthropic/ names, without the date of the snapshot"
    )


def test_a_price_of_the_requested_model_is_said_to_be() -> None:
    """Where the model that answered has no price, the explanation says that the other one's counts."""
    found = explained(rated(price(1), model_served="something-else"), price(1))

    assert found.rating is not None
    assert found.rating.version is not None
    assert found.rating.version.found_by == (
        "the operator's own; by the model that was asked for, not the one that answered"
    )


def test_a_tier_without_a_price_is_said_to_be_one() -> None:
    """Where the standard tier's price stands in for another one's, the explanation says so."""
    found = explained(rated(price(1), service_tier="flex", cache_write_tokens=0), price(1))

    assert found.rating is not None
    assert found.rating.version is not None
    assert found.rating.version.found_by == (
        "the operator's own; the tier flex has no price, so that the standard one stands in"
    )


def test_hours_of_the_day_are_shown() -> None:
    """A version that holds for a part of the day says for which."""
    night = price(1, hours=Hours(start_minute=16 * 60 + 30, end_minute=30))
    found = explained(rated(night, started_at=T, cache_write_tokens=0), night)

    assert found.rating is not None
    assert found.rating.version is not None
    assert found.rating.version.hours == "16:30-00:30"


def test_a_long_context_is_said_to_be_one() -> None:
    """Where the prompt is long, the rates are those of long prompts, and the threshold is named."""
    long = rated(DEAR, model_requested="anthropic/claude", prompt_tokens=200_001, cache_write_tokens=0)

    found = explained(long, DEAR)

    assert found.rating is not None
    assert found.rating.above_tokens == 200_000
    assert found.rating.items[0].usd_per_million_tokens == "6.000000"


def test_corrections_are_shown_in_their_order() -> None:
    """Each correction says when, who, why, how much, and by which version; the last cost counts."""
    second = price(2, rates=Rates(prompt=mtok("2"), completion=mtok("15")))
    third = price(3, rates=Rates(prompt=0, completion=0))
    usage = {"cached_tokens": 0, "cache_write_tokens": 0}
    account = rated(price(1), **usage)

    account = corrected(corrected(account, price(1), second), price(1), second, third)
    found = explained(account, price(1), second, third)

    assert found.recorded_cost_usd == "0.003750"
    assert [(each.difference_usd, each.actor, each.reason) for each in found.corrections] == [
        ("-0.001000", "somebody@host", "the price was wrong"),
        ("-0.002750", "somebody@host", "the price was wrong"),
    ]
    assert [each.rating.price_id for each in found.corrections if each.rating] == [2, 3]
    assert found.cost_usd == "0.000000"


def test_an_unknown_model_says_what_to_do() -> None:
    """Without a price the explanation names the model and the commands that help."""
    found = explained(rated(model_requested="nobody-knows", model_served="really-nobody"))

    assert found.unpriced is not None
    assert "no price for really-nobody nor nobody-knows" in found.unpriced.why
    assert "meter prices set really-nobody --prompt USD" in found.unpriced.what_to_do
    assert "meter prices reprice --since 2026-11-01 --apply" in found.unpriced.what_to_do
    assert (found.cost_usd, found.recorded_cost_usd, found.rating) == (None, None, None)


def test_a_kind_without_a_price_is_named() -> None:
    """Where a version lacks a kind, the kind is named, and shown without an amount."""
    found = explained(rated(price(1)), price(1))

    assert found.rating is not None
    assert found.rating.sum_usd is None
    assert [item.kind for item in found.rating.items if item.amount_usd is None] == ["cache_write"]
    assert found.unpriced is not None
    assert "has no price for cache_write" in found.unpriced.why


def test_a_price_that_came_later_is_said_to_be_there() -> None:
    """Where the book has a price by now, only rating again is left to do."""
    found = explained(rated(cache_write_tokens=0), price(1))

    assert found.unpriced is not None
    assert found.unpriced.what_to_do == "it has one now: meter prices reprice --since 2026-11-01 --apply"


def test_nothing_used_is_not_unpriced() -> None:
    """What the upstream refused costs nothing, and lacks no price."""
    nothing = event(usage_source=UsageSource.NONE, cost=0, prompt_tokens=0)

    found = explained(Account(Posted(nothing, T)))

    assert (found.cost_usd, found.unpriced, found.rating) == ("0.000000", None, None)


def test_a_version_that_is_gone_is_named() -> None:
    """A price that the book has lost leaves its number, and the cost as it was recorded."""
    found = explained(rated(price(1), cache_write_tokens=0))

    assert found.rating is not None
    assert (found.rating.price_id, found.rating.version, found.rating.items) == (1, None, [])
    assert found.cost_usd == "0.003750"


def test_a_rule_that_is_gone_leaves_none() -> None:
    """Where the configuration has changed so that the price would not be found any more, there is no rule."""
    account = rated(DEAR, model_requested="claude")
    moved = msgspec.structs.replace(account.event, model_requested="other/claude", price_id=7)

    found = explained(Account(Posted(moved, T)), DEAR)

    assert found.rating is not None
    assert found.rating.version is not None
    assert found.rating.version.found_by is None


@given(reported, rates)
def test_the_summands_are_the_cost(usage: ReportedUsage, drawn: Rates) -> None:
    """For any usage at any rates, the amounts that are shown add up to the cost that is shown."""
    normalised, _ = normalise(usage, "model")
    version = price(1, rates=drawn)
    account = rated(version, **{name: getattr(normalised, name) for name in normalised.__struct_fields__})

    found = explained(account, version)

    assert found.rating is not None
    assert found.rating.sum_usd == found.cost_usd
    if found.cost_usd is not None:
        amounts = [Decimal(item.amount_usd or "") for item in found.rating.items]
        assert sum(amounts) == Decimal(found.cost_usd)


def test_it_can_be_written_as_json() -> None:
    """An explanation is a document, and an exact one: no amount is a number."""
    found = explained(corrected(rated(cache_write_tokens=0), price(1)), price(1))

    document = msgspec.json.decode(msgspec.json.encode(found))

    assert document["cost_usd"] == document["corrections"][0]["difference_usd"] == "0.003750"
    assert document["unpriced"] is None
    assert UsageEvent.__struct_fields__[0] in document
