"""Corrections: which an event needs, what they hold, and when there is none."""

from datetime import timedelta

import pytest

from meter.core.access import ACTOR_LENGTH_MAX
from meter.core.corrections import (
    REASON_LENGTH_MAX,
    Account,
    Cause,
    Posted,
    Verdict,
    correction_id,
    given_cause,
    judge,
    posting_time,
)
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.prices import RESERVATION_CHARGED, Price, PriceBook, Rates
from meter.core.rollup import Sums
from tests.core.test_prices import BEGINNING, T, event, mtok, price

CAUSE = Cause("somebody@host", "the price was wrong")
MINUTE = timedelta(minutes=1)
OLD = price(1)
NEW = price(2, rates=Rates(prompt=mtok("2"), completion=mtok("15")))


def account(recorded: UsageEvent, *corrections: UsageEvent) -> Account:
    """Make the account of an event, each of whose entries was posted a minute after the one before."""
    entries = [Posted(each, T + number * MINUTE) for number, each in enumerate(corrections, 1)]
    return Account(Posted(recorded, T), tuple(entries))


def verdict(of: Account, *versions: Price) -> Verdict:
    """Judge an account by a book of these versions."""
    return judge(of, PriceBook(versions), CAUSE)


def corrected(of: Account, *versions: Price) -> UsageEvent:
    """Return the correction that an account must need."""
    made = verdict(of, *versions).correction
    assert made is not None
    return made


RATED = event(cost=3 * 10**12, price_id=1, completion_tokens=0)
UNPRICED = event(completion_tokens=5)


def test_a_correction_holds_the_difference() -> None:
    """A correction has the difference of the costs, no requests and no tokens, and stands in the same row."""
    recorded = event(
        cost=3 * 10**12,
        price_id=1,
        model_served="model",
        service_tier="default",
        stream=True,
        outcome=Outcome.CLIENT_CLOSED,
        usage_source=UsageSource.ESTIMATED,
        end_user="u-1",
        tags=("a", "b"),
    )

    made = corrected(account(recorded), OLD, NEW)

    assert made == UsageEvent(
        event_id=correction_id(recorded.event_id, 2),
        started_at=recorded.started_at,
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="gateway",
        model_requested="model",
        model_served="model",
        service_tier="default",
        stream=True,
        outcome=Outcome.CLIENT_CLOSED,
        usage_source=UsageSource.ESTIMATED,
        cost=-(10**12),
        price_id=2,
        end_user="u-1",
        tags=("a", "b"),
        corrects_id=recorded.event_id,
        actor="somebody@host",
        reason="the price was wrong",
    )


def test_the_id_is_made_of_the_event_and_the_version() -> None:
    """The same event and version make the same id, a UUIDv5, and any other ones another."""
    one, other = "019ab1c2-0000-7000-8000-000000000000", "019ab1c2-0000-7000-8000-000000000001"

    assert correction_id(one, 1) == "f283106b-0168-5686-a5de-d494bde7526c"
    assert len({correction_id(each, number) for each in (one, other) for number in (1, 2, 12)}) == 6


def test_what_was_unpriced_gets_its_whole_cost() -> None:
    """The first price of an event counts whole, and says how many tokens are not unpriced any more."""
    made = corrected(account(UNPRICED), OLD)

    assert (made.cost, made.price_id, made.priced_tokens) == (3 * 10**12 + 5 * mtok("15"), 1, 10**6 + 5)
    assert account(UNPRICED, made).cost == made.cost


def test_free_is_a_price() -> None:
    """An unpriced event that is free gets a correction of nothing, since it is not unpriced any more."""
    free = price(1, rates=Rates(prompt=0, completion=0))

    made = corrected(account(UNPRICED), free)

    assert (made.cost, made.priced_tokens) == (0, 10**6 + 5)
    assert verdict(account(UNPRICED, made), free) == Verdict()


def test_later_corrections_count_from_where_the_earlier_ones_left() -> None:
    """A second change holds the difference to the cost after the first one."""
    third = price(3, rates=Rates(prompt=mtok("7"), completion=0))
    first = corrected(account(RATED), OLD, NEW)

    second = corrected(account(RATED, first), OLD, NEW, third)

    assert (first.cost, second.cost) == (-(10**12), 5 * 10**12)
    assert second.priced_tokens is None
    assert account(RATED, first, second).cost == 7 * 10**12
    assert verdict(account(RATED, first, second), OLD, NEW, third) == Verdict()


@pytest.mark.parametrize(
    ("recorded", "versions"),
    [
        pytest.param(RATED, [OLD], id="the same version"),
        pytest.param(RATED, [], id="the price has gone"),
        pytest.param(RATED, [price(2, rates=Rates(completion=1))], id="the new version lacks the kind"),
        pytest.param(RATED, [price(2)], id="another version at the same rates"),
        pytest.param(UNPRICED, [], id="still no price"),
        pytest.param(UNPRICED, [price(1, rates=Rates(prompt=1))], id="still a kind without a price"),
        pytest.param(UNPRICED, [price(1, effective_from=T + MINUTE)], id="a price that holds from later on"),
        pytest.param(
            event(usage_source=UsageSource.NONE, cost=0, prompt_tokens=0),
            [price(1, rates=Rates(prompt=1, request=5))],
            id="nothing was used",
        ),
        pytest.param(
            event(cost=7 * 10**12, price_id=1, cost_bound=7 * 10**12, anomalies=(RESERVATION_CHARGED,)),
            [NEW],
            id="a budget charged what was reserved",
        ),
        pytest.param(
            event(prompt_tokens=10**12, completion_tokens=10**12), [NEW], id="a cost that nobody believes"
        ),
    ],
)
def test_what_needs_no_correction(recorded: UsageEvent, versions: list[Price]) -> None:
    """Where the book says nothing new, nothing is corrected; what has a cost never loses it."""
    assert verdict(account(recorded), *versions) == Verdict()


def test_a_version_corrects_once() -> None:
    """Where a configuration leads back to a version that has corrected already, the event stays."""
    there = corrected(account(RATED), NEW)
    back = corrected(account(RATED, there), OLD)

    assert account(RATED, there, back).cost == RATED.cost
    assert verdict(account(RATED, there, back), NEW) == Verdict(repeats=True)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (event(upstream_cost=80), Sums(compared_cost=3 * 10**12, compared_upstream_cost=80)),
        (
            event(upstream_cost=80, cost=5, price_id=9),
            Sums(compared_cost=3 * 10**12, compared_upstream_cost=80),
        ),
        (event(), Sums()),
        (event(cost=5, price_id=9), Sums()),
    ],
)
def test_corrections_are_compared_with_the_upstream_too(recorded: UsageEvent, expected: Sums) -> None:
    """With its correction, an event is compared with what the upstream says as if it had always cost that."""
    sums = Sums()
    for entry in (recorded, corrected(account(recorded), OLD)):
        sums.add(entry)

    assert (sums.cost, sums.unpriced_requests, sums.unpriced_tokens) == (3 * 10**12, 0, 0)
    assert sums.compared_cost == expected.compared_cost
    assert sums.compared_upstream_cost == expected.compared_upstream_cost


def test_a_tier_that_is_assumed_is_said_to_be() -> None:
    """A correction by the standard tier's price, for a tier that has none, is flagged like an event."""
    made = corrected(account(event(service_tier="flex")), OLD)

    assert made.anomalies == ("tier_assumed_standard",)


def test_corrections_are_posted_after_what_they_correct() -> None:
    """Where the clock went back, a correction still comes after every entry of the event."""
    first = corrected(account(RATED), NEW)
    accounts = [account(RATED), account(RATED, first)]

    assert posting_time(accounts, T + 2 * MINUTE) == T + 2 * MINUTE
    assert posting_time(accounts, T) == T + MINUTE + timedelta(microseconds=1)
    assert posting_time([], BEGINNING) == BEGINNING


@pytest.mark.parametrize("reason", ["", " ", "x" * (REASON_LENGTH_MAX + 1), "a\nb", "a\x1b[31m", "\ud800"])
def test_a_bad_reason_is_refused(reason: str) -> None:
    """A reason is a line of text that the database can hold."""
    with pytest.raises(ValueError, match="a reason has"):
        given_cause("somebody", reason)


def test_a_long_name_is_cut() -> None:
    """A machine's name may be long, and is cut to what the database holds."""
    assert given_cause("x" * 500, "why") == Cause("x" * ACTOR_LENGTH_MAX, "why")


def test_a_reservation_that_was_charged_stays() -> None:
    """What a strict budget charged because nobody knows what was used is changed by no price."""
    recorded = event(
        cost=9 * 10**12,
        price_id=1,
        usage_source=UsageSource.ESTIMATED,
        anomalies=(RESERVATION_CHARGED,),
        cost_bound=9 * 10**12,
    )

    assert verdict(account(recorded), OLD, NEW) == Verdict()
