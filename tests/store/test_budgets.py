"""Budgets in the database: what a change keeps, what a window begins with, and what verify finds."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
import pytest
import sqlalchemy as sa

from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.errors import NotFound
from meter.core.events import Outcome
from meter.core.period import period_of
from meter.store import budgets, ledger, months
from meter.store.database import Database
from meter.store.sums import usual_completions
from meter.store.tables import allowances, budget_windows
from tests.store.conftest import NOW, make_event, new_event_id, second

SOMEBODY = Signature("test", NOW)


def budget(**fields: object) -> Budget:
    """Make a budget of the organisation's, by the month in UTC."""
    values: dict[str, object] = {
        "id": "b",
        "owner_kind": OwnerKind.ORG,
        "measure": Measure.COST,
        "period": "month",
        "limit": 1000,
        "enforcement": Enforcement.STRICT,
    }
    return Budget(**values | fields)  # type: ignore[arg-type]


def spend(database: Database, cost: int, **fields: object) -> None:
    """Put an event into the ledger."""
    event = make_event(new_event_id(Random(cost)), cost=cost, prompt_tokens=cost, **fields)
    assert ledger.append(database, [event], NOW) == 1


def test_a_change_keeps_what_is_spent(database: Database) -> None:
    """Setting a budget again changes its limit and enforcement, keeps its id, and resets nothing."""
    budgets.put(database, budget(), SOMEBODY)
    spend(database, 30)

    changed = budgets.put(database, budget(id="other", limit=20, enforcement=Enforcement.STANDARD), SOMEBODY)

    assert (changed.budget.id, changed.budget.limit, changed.spent) == ("b", 20, 30)
    assert changed.budget.enforcement is Enforcement.STANDARD
    assert changed.available == 0
    assert [each.id for each in budgets.load(database)] == ["b"]


def test_another_zone_begins_other_windows(database: Database) -> None:
    """In another time zone a window holds other events, and what is spent is summed anew."""
    last_of_october = datetime(2026, 10, 31, 23, 30, tzinfo=UTC)
    budgets.put(database, budget(), SOMEBODY)
    spend(database, 30)
    spend(database, 7, started_at=last_of_october)

    in_utc = budgets.standings(database, NOW)
    in_berlin = budgets.put(database, budget(tz="Europe/Berlin"), SOMEBODY)

    assert [each.spent for each in in_utc] == [30]
    assert in_berlin.spent == 37
    assert ledger.verify(database) == []


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize("model", ["", "mod*"])
def test_a_window_begins_with_what_the_ledger_holds(database: Database, measure: Measure, model: str) -> None:
    """A budget that is made in the middle of a window begins with its sum, by when events started."""
    october = datetime(2026, 10, 20, tzinfo=UTC)
    spend(database, 30)
    spend(database, 2, key_id="another")
    spend(database, 5, started_at=october)
    months.close(database, period_of(october, "month", UTC), SOMEBODY)
    # This counts in November in reports, and started in October all the same.
    spend(database, 11, started_at=october)

    made = budget(owner_kind=OwnerKind.KEY, owner_id="key", measure=measure, model=model)
    standing = budgets.put(database, made, SOMEBODY)
    of_october = budgets.standings(database, october)

    assert standing.spent == (1 if measure is Measure.REQUESTS else 30)
    assert [each.spent for each in of_october] == [2 if measure is Measure.REQUESTS else 16]
    assert ledger.verify(database) == []


def test_a_negative_correction_makes_room(database: Database) -> None:
    """A correction counts where its event does, and may take from what is spent."""
    budgets.put(database, budget(), SOMEBODY)
    original = make_event(new_event_id(Random(1)), cost=30)
    correction = make_event(
        new_event_id(Random(2)), cost=-12, corrects_id=original.event_id, actor="a", reason="r"
    )

    ledger.append(database, [original, correction], NOW)

    assert [each.spent for each in budgets.standings(database, NOW)] == [18]
    assert ledger.verify(database) == []


def test_what_is_removed_is_gone(database: Database) -> None:
    """A budget goes with its windows, and removing it again finds none."""
    budgets.put(database, budget(), SOMEBODY)

    assert budgets.remove(database, "b", SOMEBODY) == budget()

    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(budget_windows)) == 0
    with pytest.raises(NotFound, match="meter budgets list"):
        budgets.remove(database, "b", SOMEBODY)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"spent": 31}, "spent 31 instead of 30"), ({"reserved": 5}, "reserved 5, and allowances hold 0")],
)
def test_verify_finds_every_mismatch(database: Database, change: dict[str, int], said: str) -> None:
    """A window that does not agree with the ledger and the allowances is named with both numbers."""
    budgets.put(database, budget(), SOMEBODY)
    spend(database, 30)
    with database.write() as connection:
        connection.execute(sa.update(budget_windows).values(change))

    (sentence,) = ledger.verify(database)

    assert said in sentence
    assert "the organisation" in sentence


def test_budgets_made_while_events_are_appended(postgres_database: Database) -> None:
    """Whoever makes budgets and whoever appends, lists and removes at the same time lose no event."""
    database = postgres_database
    stop = threading.Event()
    before = deadlocks(database)

    def appends(number: int) -> int:
        mine, random = second(database), Random(number)
        done = 0
        try:
            while not stop.is_set():
                # Windows of several hours, so that new ones are made all the time.
                hours = [timedelta(hours=random.randrange(-40, 1)) for _ in range(5)]
                events = [
                    make_event(new_event_id(random), started_at=NOW + hour, cost=random.randrange(100))
                    for hour in hours
                ]
                done += ledger.append(mine, events, NOW)
        finally:
            mine.dispose()
        return done

    def lists() -> None:
        mine = second(database)
        try:
            while not stop.is_set():
                budgets.standings(mine, NOW)
        finally:
            mine.dispose()

    with ThreadPoolExecutor(4) as pool:
        appending = [pool.submit(appends, number) for number in range(2)]
        listing = pool.submit(lists)
        for number in range(12):
            name = f"b{number % 4}"
            period = ("hour", "day", "week", "month")[number % 4]
            zone = ("UTC", "Asia/Kolkata", "Europe/Berlin")[number % 3]
            budgets.put(database, budget(id=name, period=period, tz=zone), SOMEBODY)
        stop.set()
        counts = [each.result() for each in appending]
        listing.result()

    assert min(counts) > 0
    assert ledger.verify(database) == []
    assert deadlocks(database) == before


def test_listing_locks_nothing(postgres_database: Database) -> None:
    """Somebody who lists budgets waits for no window that is locked, so that there is no order to keep."""
    database = postgres_database
    for name in ("hour", "day"):
        budgets.put(database, budget(id=name, period=name), SOMEBODY)

    def listed() -> int:
        return len(budgets.standings(database, NOW))

    assert while_locked(database, listed) == 2


def while_locked(database: Database, act: Callable[[], int]) -> int:
    """Act while another transaction has locked all windows."""
    with database.write() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(sa.select(budget_windows).with_for_update())
        return pool.submit(act).result(5)


def deadlocks(database: Database) -> int:
    """Return how many deadlocks the server has broken in this database."""
    with database.read() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.exec_driver_sql(query).scalar_one())


def test_ids_of_allowances_are_never_used_again(database: Database) -> None:
    """A late event names the allowance it was reserved in, which must not be somebody else's by then."""
    budgets.put(database, budget(), SOMEBODY)
    ids = []
    for holder in ("one", "two"):
        with database.write() as connection:
            window = connection.execute(sa.select(budget_windows.c.id)).scalar_one()
            values = {"holder": holder, "window_id": window, "amount": 0}
            added = database.insert(allowances).values(values).returning(allowances.c.id)
            ids.append(connection.execute(added).scalar_one())
            connection.execute(sa.delete(allowances))

    assert ids[1] > ids[0]


def test_thresholds_are_kept(database: Database) -> None:
    """What is read back is what was put, thresholds and pattern too."""
    made = budget(model="openai/*", thresholds=(10, 90), period="total")

    budgets.put(database, made, SOMEBODY)

    assert budgets.load(database) == [msgspec.structs.replace(made)]


def test_how_long_answers_usually_are(database: Database) -> None:
    """The average of what was answered lately, by key and model; refusals and older answers don't count."""
    random = Random(1)
    old = make_event(new_event_id(random), started_at=NOW - timedelta(days=9), completion_tokens=900)
    failed = make_event(new_event_id(random), outcome=Outcome.UPSTREAM_ERROR)
    events = [make_event(new_event_id(random), completion_tokens=tokens) for tokens in (10, 21)]
    ledger.append(database, [old, failed, *events], NOW)

    found = usual_completions(database, NOW - timedelta(days=7), 10)

    assert found == {(old.key_id, old.model): 15.5}
