"""Budgets as they are written down and shown: every fault names its field."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from meter.core.budget_drafts import Draft, applying, check, shown
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind, Standing
from meter.core.keys import Grant

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def read(**fields: object) -> Budget:
    """Read a draft of 50 USD a month unless told otherwise."""
    values = {"limit": "50", "period": "month"} | fields
    return check(msgspec.convert(values, Draft), budget_id="b", owner_id="o", owner="search")


def test_what_is_not_said_is_usual() -> None:
    """A limit and a period are enough: of costs, in UTC, `standard`, for any model."""
    found = read()

    assert (found.limit, found.measure, found.tz) == (50 * 10**12, Measure.COST, "UTC")
    assert (found.enforcement, found.model, found.thresholds) == (Enforcement.STANDARD, "", (50, 80, 100))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({}, OwnerKind.ORG), ({"team": "search"}, OwnerKind.TEAM), ({"key": "k"}, OwnerKind.KEY)],
)
def test_whose_it_is(fields: dict[str, object], kind: OwnerKind) -> None:
    """It is a team's or a key's where one is named, else the organisation's."""
    assert read(**fields).owner_kind is kind


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limit": "x"}, "amount"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "1.5", "measure": "tokens"}, "limit"),
        ({"period": "year"}, "period must be one of hour, day"),
        ({"measure": "coins"}, "measure must be one of cost, tokens"),
        ({"enforcement": "hard"}, "enforcement must be one of strict"),
        ({"tz": "Mars/Olympus"}, "time zone"),
        ({"thresholds": (0,)}, "thresholds"),
        ({"model": "a\tb"}, "pattern"),
    ],
)
def test_faults_name_their_field(fields: dict[str, object], said: str) -> None:
    """What cannot be read is refused with the field and what it may be."""
    with pytest.raises(ValueError, match=said):
        read(**fields)


def test_how_a_budget_is_shown() -> None:
    """Amounts are exact strings in the budget's measure."""
    standing = Standing(budget=read(team="search"), start=NOON, end=None, spent=1, reserved=10**12)

    found = shown(standing, NOON)

    assert (found.owner_kind, found.owner, found.measure) == ("team", "search", "cost")
    assert (found.limit, found.spent, found.reserved) == ("50.000000", "0.000000000001", "1.000000")
    assert found.available == "48.999999999999"
    assert msgspec.json.decode(msgspec.json.encode(found))["window_end"] is None


def test_a_budget_says_what_comes_of_it() -> None:
    """A window is projected on, in the budget's time zone, unless it never ends or has hardly begun."""
    budget = read(team="search", tz="Europe/Berlin")
    standing = Standing(
        budget=budget, start=NOON, end=NOON + timedelta(days=10), spent=20 * 10**12, reserved=0
    )

    found = shown(standing, NOON + timedelta(days=2))

    assert found.projected == "100.000000"
    assert found.reached_at == NOON + timedelta(days=5)
    assert found.reached_at.tzinfo == found.window_start.tzinfo
    for other, now in (
        (standing, NOON),
        (msgspec.structs.replace(standing, end=None), NOON + timedelta(days=2)),
    ):
        early = shown(other, now)
        assert (early.projected, early.reached_at) == (None, None)


def test_which_budgets_a_key_falls_under() -> None:
    """The organisation's, its team's and its own, or those of the line of keys that it is of."""
    budgets = [msgspec.structs.replace(read(), owner_id=""), read(team="t"), read(key="k")]
    standings = [Standing(budget=each, start=NOON, end=None, spent=0, reserved=0) for each in budgets]

    def kinds(team_id: str, key_id: str) -> list[str]:
        found = applying(standings, Grant(key_id, "a key", team_id, "a team"))
        return [each.budget.owner_kind.value for each in found]

    assert kinds("o", "another") == ["org", "team"]
    assert kinds("another", "o") == ["org", "key"]
    successor = Grant("s", "a successor", "another", "a team", first_id="o")
    assert [each.budget.owner_kind for each in applying(standings, successor)] == ["org", "key"]
