"""Retention: events leave by whole months, the sums stay, and nothing is summed that is not there."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.access import EVERYTHING
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.corrections import Account, Cause, Verdict, judge
from meter.core.errors import Conflict, InvalidRequest, NotFound
from meter.core.events import UsageEvent
from meter.core.months import parse_month
from meter.core.prices import Price, PriceBook, Rates
from meter.core.reports import Question
from meter.core.retention import BeforeHorizon, Month
from meter.store import (
    audit,
    budgets,
    corrections,
    events,
    focus,
    ledger,
    months,
    reconcile,
    reports,
    retention,
)
from meter.store.database import Database, DatabaseUnavailable
from meter.store.partitions import make_partitions
from meter.store.tables import metadata
from tests import services
from tests.store.conftest import NOW, closing_database, make_event, new_event_id, random_event, second
from tests.store.test_ledger import count
from tests.store.test_partitions import partitions

RANDOM = Random(8)
AUGUST, SEPTEMBER, OCTOBER, NOVEMBER = (datetime(2026, month, 1, tzinfo=UTC) for month in (8, 9, 10, 11))
EVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))
BY = Signature("operator@host", NOW)
WAIT_SECONDS_MAX = 20.0


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """Make a database whose partitions these tests drop."""
    with services.fresh_database() as url:
        with closing_database(url) as opened:
            bring_up_to_date(opened)
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """Give that database, empty, with partitions from August on."""
    with closing_database(postgres_url) as opened:
        with opened.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        make_partitions(opened, AUGUST)
        yield opened


def event_of(month: datetime, **fields: object) -> UsageEvent:
    """Make an event of some instant of a month."""
    started_at = month + timedelta(seconds=RANDOM.randrange(28 * 24 * 3600))
    return make_event(new_event_id(RANDOM, started_at), started_at=started_at, **fields)


def filled(database: Database, each: int = 30) -> list[UsageEvent]:
    """Put events of four months into the ledger, and of one before there were partitions."""
    months_before = (datetime(2026, 6, 1, tzinfo=UTC), AUGUST, SEPTEMBER, OCTOBER)
    made = [
        random_event(RANDOM, month, month + timedelta(days=28))
        for month in months_before
        for _ in range(each)
    ]
    made += [random_event(RANDOM, NOVEMBER, NOW) for _ in range(each)]
    ledger.append(database, made, NOW)
    return made


def retain(database: Database, horizon: datetime) -> int:
    """Move the horizon, and remove what is before it."""
    retention.advance(database, horizon, BY)
    return retention.remove(database, lambda _seconds: None)


def total_of(database: Database, since: datetime, until: datetime, *by: str) -> object:
    """Return the total of a report."""
    return reports.answer(database, Question(by=by, since=since, until=until, tz=UTC)).total


def consistent(database: Database) -> bool:
    """Say whether everything that is still there agrees."""
    return [*ledger.verify(database), *corrections.verify(database)] == []


def test_events_leave_and_their_sums_stay(database: Database) -> None:
    """What started before the horizon is gone, and reports of all time are what they were."""
    made = filled(database)
    before = total_of(database, *EVER)

    removed = retain(database, OCTOBER)

    assert removed == 90
    assert count(database) == 60
    assert ledger.find(database, made[0].event_id) is None
    assert ledger.find(database, made[-1].event_id) == made[-1]
    assert total_of(database, *EVER) == before
    assert total_of(database, OCTOBER, EVER[1], "user") == total_of(database, OCTOBER, EVER[1], "model")
    assert consistent(database)


def test_partitions_go_with_their_months(database: Database) -> None:
    """On PostgreSQL the partitions of months before the horizon are dropped, and no others."""
    if database.is_sqlite:
        pytest.skip("SQLite has no partitions")
    filled(database)

    retain(database, OCTOBER)

    assert partitions(database).keys() == {"usage_events_default", "usage_events_2026_10"}


def test_the_plan_counts_what_leaves(database: Database) -> None:
    """A dry run names the months and their events, changes nothing, and nothing is left afterwards."""
    filled(database)

    planned = retention.plan(database, OCTOBER)

    assert planned.horizon is None
    assert planned.months == (Month("2026-06", 30), Month("2026-08", 30), Month("2026-09", 30))
    assert count(database) == 150
    retain(database, OCTOBER)
    assert retention.plan(database, OCTOBER) == (OCTOBER, OCTOBER, ())


def test_the_horizon_never_moves_back(database: Database) -> None:
    """Keeping longer from now on brings nothing back, and does not claim to."""
    filled(database)
    retain(database, OCTOBER)

    assert not retention.advance(database, SEPTEMBER, BY)
    assert not retention.advance(database, OCTOBER, BY)
    assert retention.begins(database) == OCTOBER


def test_moving_the_horizon_is_in_the_audit_log(database: Database) -> None:
    """The log says who moved it, from where and to where; what changes nothing is not in it."""
    retention.advance(database, SEPTEMBER, BY)
    retention.advance(database, OCTOBER, BY)
    retention.advance(database, OCTOBER, BY)

    noted = [(each.actor, each.action, each.target, each.details) for each in audit.page(database, limit=9)]

    assert noted == [
        ("operator@host", "ledger.retain", "2026-10-01T00:00Z", {"before": "2026-09-01T00:00Z"}),
        ("operator@host", "ledger.retain", "2026-09-01T00:00Z", {"before": None}),
    ]


def test_a_late_event_counts_when_it_is_posted(database: Database) -> None:
    """What comes for a time before the horizon counts now, once, and stays until this month goes."""
    filled(database)
    retain(database, OCTOBER)
    before = total_of(database, EVER[0], OCTOBER)
    late = event_of(AUGUST, cost=7)

    appended = [ledger.append(database, [late], NOW) for _ in range(2)]
    retention.remove(database)

    assert appended == [1, 0]
    found = ledger.find(database, late.event_id)
    assert found is not None
    assert found.counted_at == NOW
    assert total_of(database, EVER[0], OCTOBER) == before
    assert consistent(database)


def test_what_counts_in_a_month_that_stays_stays(database: Database) -> None:
    """A late event of a closed month leaves with the month in which it counts."""
    months.close(database, parse_month("2026-09"), BY)
    late = event_of(SEPTEMBER, cost=7)
    ledger.append(database, [event_of(SEPTEMBER, cost=1, counted_at=None) for _ in range(3)], OCTOBER)
    ledger.append(database, [late], NOW)

    retain(database, NOVEMBER)

    assert ledger.find(database, late.event_id) is not None
    assert count(database) == 1
    assert consistent(database)
    assert retain(database, datetime(2026, 12, 1, tzinfo=UTC)) == 1
    assert count(database) == 0
    assert consistent(database)


@pytest.mark.parametrize("by", [("user",), ("tag",), ("team", "user")])
def test_reports_of_the_ledger_begin_at_the_horizon(database: Database, by: tuple[str, ...]) -> None:
    """A report by user or tag that begins earlier is refused, and says where the ledger begins."""
    retain(database, OCTOBER)

    with pytest.raises(BeforeHorizon, match="the ledger begins at 2026-10-01T00:00Z"):
        total_of(database, OCTOBER - timedelta(minutes=15), NOW, *by)

    total_of(database, OCTOBER, NOW, *by)


def test_exports_and_bills_begin_at_the_horizon(database: Database) -> None:
    """FOCUS and reconciling read the ledger, so that they refuse what has left it."""
    retain(database, OCTOBER)
    asked = Question(by=(), since=SEPTEMBER, until=OCTOBER, tz=UTC)

    with pytest.raises(BeforeHorizon, match="FOCUS"):
        next(focus.days(database, asked))
    with pytest.raises(BeforeHorizon, match="Comparing a bill"):
        reconcile.recorded(database, asked, upstream=None, by_tier=False)
    with pytest.raises(BeforeHorizon, match="Comparing a bill"):
        next(reconcile.attempts(database, SEPTEMBER, OCTOBER, models=["m"], upstream=None))


def test_a_bill_of_a_month_that_stays_has_its_late_events_on_their_day(database: Database) -> None:
    """What came late for an older month is in the rollup of now, and in no bill of it."""
    retain(database, OCTOBER)
    ledger.append(database, [event_of(AUGUST, cost=7), event_of(NOVEMBER, cost=5)], NOW)
    asked = Question(by=(), since=NOVEMBER, until=datetime(2026, 12, 1, tzinfo=UTC), tz=UTC)

    lines, _ = reconcile.recorded(database, asked, upstream=None, by_tier=False)

    assert [line.sums.cost for line in lines] == [5]


def test_months_before_the_horizon_need_no_closing(database: Database) -> None:
    """Closing one is refused with the reason; a later one closes."""
    retain(database, OCTOBER)

    with pytest.raises(Conflict, match="the ledger begins at 2026-10-01T00:00Z"):
        months.close(database, parse_month("2026-09"), BY)
    months.close(database, parse_month("2026-10"), BY)


def test_events_that_left_are_not_found_for_a_reason(database: Database) -> None:
    """Who looks for an event is told where the ledger begins."""
    retain(database, OCTOBER)

    with pytest.raises(NotFound, match="from before 2026-10-01T00:00Z have left the ledger"):
        events.find(database, new_event_id(RANDOM), EVERYTHING)


def book() -> PriceBook:
    """Make a price book that prices every model of these tests."""
    version = Price(
        id=1,
        catalog="",
        model="model",
        effective_from=EVER[0],
        rates=Rates(prompt=2, completion=3),
        source="set",
        created_at=NOW,
        created_by="somebody@host",
    )
    return PriceBook([version], {})


def test_rating_again_begins_at_the_horizon(database: Database) -> None:
    """Events from before it are not corrected: neither is a run begun there, nor one under way."""
    made = [event_of(SEPTEMBER, prompt_tokens=5), event_of(OCTOBER, prompt_tokens=5)]
    ledger.append(database, made, NOW)
    under_way = next(corrections.pages(database, SEPTEMBER, NOW))
    retain(database, OCTOBER)

    def decide(account: Account) -> Verdict:
        return judge(account, book(), Cause("operator@host", "re-rated"))

    with pytest.raises(BeforeHorizon, match="Rating again"):
        next(corrections.pages(database, SEPTEMBER, NOW))
    with pytest.raises(BeforeHorizon, match="Rating again"):
        corrections.correct(database, under_way, decide, NOW)
    (left,) = next(corrections.pages(database, OCTOBER, NOW))
    assert len(corrections.correct(database, [left], decide, NOW)) == 1
    assert consistent(database)


def test_corrections_may_outlive_their_events(database: Database) -> None:
    """A correction that counts in a month that stays is no orphan when its event has left."""
    made = event_of(SEPTEMBER, prompt_tokens=5)
    ledger.append(database, [made], NOW)
    months.close(database, parse_month("2026-09"), BY)
    pages = next(corrections.pages(database, SEPTEMBER, OCTOBER))
    corrections.correct(
        database, pages, lambda account: judge(account, book(), Cause("operator@host", "re-rated")), NOW
    )

    retain(database, OCTOBER)

    assert count(database) == 1
    assert consistent(database)


def budget(**fields: object) -> Budget:
    """Make a budget of the organisation."""
    values: dict[str, object] = {
        "id": "b1",
        "owner_kind": OwnerKind.ORG,
        "measure": Measure.COST,
        "period": "month",
        "limit": 10**15,
        "enforcement": Enforcement.STANDARD,
    }
    return Budget(**values | fields)  # type: ignore[arg-type]


def test_budgets_go_on(database: Database) -> None:
    """A budget in all keeps what was spent before the horizon, and ended windows stay as they were."""
    budgets.put(database, budget(id="all", period="total"), BY)
    budgets.put(database, budget(id="monthly"), BY)
    ledger.append(database, [event_of(SEPTEMBER, cost=7), event_of(NOVEMBER, cost=5)], NOW)
    retain(database, OCTOBER)
    assert consistent(database)

    ledger.append(database, [event_of(SEPTEMBER, cost=11)], NOW)

    spent = {standing.budget.id: standing.spent for standing in budgets.standings(database, NOW)}
    assert spent == {"all": 23, "monthly": 5}
    made_later = budgets.put(database, budget(id="later", period="total", measure=Measure.REQUESTS), BY)
    assert made_later.spent == 3
    assert consistent(database)


def test_a_budget_that_would_begin_with_what_has_left_is_refused(database: Database) -> None:
    """A budget in all for some models needs events that are gone; one of a period does not."""
    retain(database, OCTOBER)

    with pytest.raises(InvalidRequest, match="have left the ledger"):
        budgets.put(database, budget(period="total", model="m*"), BY)

    budgets.put(database, budget(model="m*"), BY)
    assert len(budgets.load(database)) == 1


def test_events_are_appended_while_others_leave(database: Database) -> None:
    """Servers go on writing while several of them clear up at once, and everything agrees."""
    filled(database, each=450)
    before = total_of(database, *EVER)
    retention.advance(database, OCTOBER, BY)
    others = [second(database) for _ in range(3)]
    removed: list[int] = []
    workers = [
        threading.Thread(target=lambda at=at: removed.append(retention.remove(at))) for at in others[:2]
    ]
    writer = threading.Thread(
        target=lambda: [ledger.append(others[2], [event_of(NOVEMBER, cost=1)], NOW) for _ in range(20)]
    )
    for thread in (*workers, writer):
        thread.start()
    for thread in (*workers, writer):
        thread.join(WAIT_SECONDS_MAX)
    for other in others:
        other.dispose()

    assert sum(removed) == 3 * 450
    assert total_of(database, *EVER).requests == before.requests + 20  # type: ignore[attr-defined]
    assert consistent(database)


def test_a_reader_keeps_its_events(database: Database) -> None:
    """A month does not leave under a report that reads it: removing gives up, and goes on the next time."""
    if database.is_sqlite:
        pytest.skip("SQLite shows a reader the state that it began with")
    filled(database)
    retention.advance(database, SEPTEMBER, BY)
    with database.read_long() as connection:
        retention.require(connection, "This reads", SEPTEMBER)
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            retention.remove(database)

    assert retention.remove(database) == 60
    assert consistent(database)
