"""What the ledger has for a comparison with a bill, and that it reconciles with itself, on both databases."""

from datetime import UTC, datetime, timedelta, tzinfo
from random import Random

import pytest

from meter.core.events import UsageEvent, UsageSource
from meter.core.period import zone
from meter.core.reconcile import Bill, Billed, Difference, Recorded, judge, pair, total
from meter.core.reports import Question
from meter.core.rollup import Sums
from meter.store import ledger, reconcile
from meter.store.database import Database
from meter.store.tables import closed_months
from tests.store.conftest import NOW, make_event, new_event_id, random_event

RANDOM = Random(5)
SINCE = datetime(2026, 10, 1, tzinfo=UTC)
UNTIL = datetime(2026, 11, 1, tzinfo=UTC)


def event_at(text: str, **fields: object) -> UsageEvent:
    """Make an event that began at an instant in UTC."""
    started_at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return make_event(new_event_id(RANDOM, started_at), started_at=started_at, **fields)


def ask(
    database: Database, tz: tzinfo = UTC, *, upstream: str | None = None, by_tier: bool = False
) -> list[Recorded]:
    """Ask what October had."""
    question = Question(by=(), since=SINCE, until=UNTIL, tz=tz)
    return reconcile.recorded(database, question, upstream=upstream, by_tier=by_tier)[0]


def close_october(database: Database) -> None:
    """Close a month."""
    with database.write() as connection:
        values = {"month": SINCE, "closed_at": NOW, "closed_by": "somebody"}
        connection.execute(closed_months.insert().values(values))


def days(found: list[Recorded]) -> dict[tuple[str, str], Sums]:
    """Add up what was found by day and model."""
    added: dict[tuple[str, str], Sums] = {}
    for line in found:
        key = (line.day, line.model)
        added[key] = added.get(key, Sums()).plus(line.sums)
    return added


@pytest.mark.parametrize("name", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_rollup_and_ledger_agree(database: Database, name: str) -> None:
    """Whether tiers are asked for or a month is closed, days and models have the same sums."""
    random = Random(3)
    ledger.append(database, [random_event(random, SINCE, UNTIL) for _ in range(200)], NOW)
    from_rollup = days(ask(database, zone(name)))

    by_tier = days(ask(database, zone(name), by_tier=True))
    close_october(database)

    assert by_tier == from_rollup
    assert days(ask(database, zone(name))) == from_rollup


def test_the_ledger_reconciles_with_itself(database: Database) -> None:
    """A bill written from the ledger has no difference, by tier or not, of one upstream or of all."""
    random = Random(7)
    drawn = [random_event(random, SINCE, UNTIL) for _ in range(200)]
    ledger.append(database, [event for event in drawn if event.cost is not None], NOW)

    for upstream in (None, "u1"):
        for by_tier in (False, True):
            ours = ask(database, upstream=upstream, by_tier=by_tier)
            bill = Bill(tuple(_billed(line) for line in ours), 12)
            findings = [judge(case, None) for case in pair(bill, ours)]
            assert {finding.difference for finding in findings} == {Difference.OK}
            assert total(findings).differing == 0
            assert total(findings).theirs > 0


def _billed(line: Recorded) -> Billed:
    counts = {name: getattr(line.sums, name) for name in Billed.__struct_fields__ if hasattr(line.sums, name)}
    return Billed(day=line.day, model=line.model, service_tier=line.service_tier, **counts)


def test_days_are_those_of_the_zone(database: Database) -> None:
    """An event in the evening is of the next day where the sun rises earlier."""
    ledger.append(database, [event_at("2026-10-21T22:30", prompt_tokens=1)], NOW)

    assert [line.day for line in ask(database)] == ["2026-10-21"]
    assert [line.day for line in ask(database, zone("Europe/Berlin"))] == ["2026-10-22"]


def test_one_upstream_of_several(database: Database) -> None:
    """The events of one upstream can be asked for, and all upstreams there are come along."""
    ledger.append(
        database,
        [event_at("2026-10-21", upstream=name, prompt_tokens=1, completion_tokens=2) for name in ("a", "b")],
        NOW,
    )
    question = Question(by=(), since=SINCE, until=UNTIL, tz=UTC)

    found, upstreams = reconcile.recorded(database, question, upstream="a", by_tier=False)

    assert [(line.sums.requests, line.sums.total_tokens) for line in found] == [(1, 3)]
    assert upstreams == {"a", "b"}


def test_tiers_are_told_apart_when_asked_for(database: Database) -> None:
    """The tier that was served is a line of its own; none is an empty one."""
    tiers = ("flex", None, "flex", "default")
    events = [event_at("2026-10-21", service_tier=tier, prompt_tokens=1) for tier in tiers]
    ledger.append(database, events, NOW)

    found = {line.service_tier: line.sums.requests for line in ask(database, by_tier=True)}

    assert found == {"flex": 2, "": 1, "default": 1}
    assert [line.service_tier for line in ask(database)] == [None]


def test_what_is_late_for_a_closed_month_counts_on_its_own_day(database: Database) -> None:
    """A provider bills a late event on its day, and a corrected cost belongs to the day of its event."""
    original = event_at("2026-10-21", prompt_tokens=10, cost=100)
    late = event_at("2026-10-21", prompt_tokens=5, cost=50, counted_at=NOW)
    correction = make_event(
        new_event_id(RANDOM),
        started_at=original.started_at,
        corrects_id=original.event_id,
        cost=-30,
        counted_at=NOW,
    )
    elsewhere = event_at("2026-09-21", prompt_tokens=7, cost=70, counted_at=UNTIL - timedelta(days=1))
    close_october(database)

    ledger.append(database, [original, late, correction, elsewhere], NOW)

    (line,) = ask(database)
    assert (line.day, line.sums.requests, line.sums.prompt_tokens, line.sums.cost) == (
        "2026-10-21",
        2,
        15,
        120,
    )


def test_the_attempts_behind_a_line(database: Database) -> None:
    """The events of a stretch come whole: of the named models and upstream, without corrections."""
    wanted = [
        event_at("2026-10-21T00:00", model_served="served", usage_raw='{"x": 1}', tags=("a",)),
        event_at("2026-10-21T23:59", model_requested="asked", usage_source=UsageSource.ESTIMATED),
    ]
    others = [
        event_at("2026-10-22", model_served="served"),
        event_at("2026-10-20T23:59", model_served="served"),
        event_at("2026-10-21", model_served="other", model_requested="asked"),
        event_at("2026-10-21", model_served="served", upstream="elsewhere"),
        event_at("2026-10-21", model_served="served", corrects_id=wanted[0].event_id, cost=1),
    ]
    ledger.append(database, [*wanted, *others], NOW)
    day = datetime(2026, 10, 21, tzinfo=UTC)

    found = list(
        reconcile.attempts(
            database, day, day + timedelta(days=1), models=["served", "asked"], upstream="upstream"
        )
    )

    assert sorted(found, key=lambda event: event.started_at) == wanted
