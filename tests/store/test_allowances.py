"""Reserving, giving back, beating and releasing: what each leaves in the database, and who may not do it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from random import Random

import pytest

from meter.core.allowances import Answer, Ask, Wish
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.errors import Conflict, NotFound
from meter.core.events import Reserved
from meter.store import allowances, budgets, ledger
from meter.store.database import Database
from tests.store.conftest import NOW, make_event, new_event_id, second
from tests.store.test_budgets import SOMEBODY, budget, deadlocks

LATER = NOW + timedelta(seconds=allowances.ALIVE_SECONDS + 1)


def wish(found: Budget, *, held: int = 0, need: int = 0, wanted: int = 0) -> Wish:
    """Make a wish for the window of now."""
    return Wish(found.id, found.span(NOW), held, need, wanted)


def reserve(database: Database, holder: str, *needs: int, held: int = 0) -> Answer:
    """Reserve for requests under the one budget."""
    (found,) = budgets.load(database)
    wishes = [wish(found, held=held, need=max(needs, default=0))]
    return allowances.reserve(database, holder, wishes, [Ask({0: need}) for need in needs], NOW)


def stands(database: Database) -> tuple[int, int]:
    """Return what is spent and reserved of the one budget."""
    (standing,) = budgets.standings(database, NOW)
    return standing.spent, standing.reserved


@pytest.fixture
def limited(database: Database) -> Database:
    """Give a database with one budget of 1000."""
    budgets.put(database, budget(), SOMEBODY)
    return database


def test_what_fits_is_reserved(limited: Database) -> None:
    """Asks are admitted in order; a refusal says how the window stands, with what was admitted before it."""
    answer = reserve(limited, "one", 400, 700, 600)

    assert [full is None for full in answer.full] == [True, False, True]
    assert answer.full[1] is not None
    assert (answer.full[1].spent, answer.full[1].reserved) == (0, 1000)
    assert answer.shares[0] is not None
    assert (answer.shares[0].amount, answer.shares[0].room) == (1000, 0)
    assert stands(limited) == (0, 1000)


def test_settling_tells_what_is_held_then(limited: Database) -> None:
    """Who appends events learns in the same transaction what is left of all that it holds."""
    share = reserve(limited, "one", 400).shares[0]
    reserve(limited, "another", 100)
    assert share is not None
    event = make_event(new_event_id(Random(1)), cost=150, reserved=(Reserved(share.allowance_id, 400),))

    shares = allowances.settle(limited, "one", [event], NOW)

    assert shares == allowances.held(limited, "one")
    assert shares[share.allowance_id].amount == share.amount - 150
    assert ledger.find(limited, event.event_id) == event


def test_an_event_moves_what_it_used(limited: Database) -> None:
    """What an event had reserved and has used goes from reserved to spent; the rest stays its holder's."""
    share = reserve(limited, "one", 400).shares[0]
    assert share is not None
    event = make_event(new_event_id(Random(1)), cost=150, reserved=(Reserved(share.allowance_id, 400),))

    ledger.append(limited, [event], NOW)
    ledger.append(limited, [event], NOW)

    assert stands(limited) == (150, 250)
    assert allowances.held(limited, "one")[share.allowance_id].amount == 250
    assert ledger.verify(limited) == []


def test_what_was_used_beyond_the_reservation_is_spent(limited: Database) -> None:
    """An event that cost more takes its whole reservation, and no more of what others have reserved."""
    share = reserve(limited, "one", 400).shares[0]
    reserve(limited, "one", 100, held=0)
    assert share is not None
    event = make_event(new_event_id(Random(1)), cost=700, reserved=(Reserved(share.allowance_id, 400),))

    ledger.append(limited, [event], NOW)

    assert stands(limited) == (700, 100)


def test_giving_back(limited: Database) -> None:
    """A holder frees what it says, at most what it has, and nothing of anybody else's."""
    share = reserve(limited, "one", 400).shares[0]
    assert share is not None

    assert allowances.give_back(limited, "two", {share.allowance_id: 100}, NOW) == {}
    left = allowances.give_back(limited, "one", {share.allowance_id: 150}, NOW)
    again = allowances.give_back(limited, "one", {share.allowance_id: 999}, NOW)

    assert [each[share.allowance_id].amount for each in (left, again)] == [250, 0]
    assert again[share.allowance_id].room == 1000
    assert stands(limited) == (0, 0)


def test_a_holder_is_released_when_its_journal_was_shipped(limited: Database) -> None:
    """Releasing frees what one holder holds, and may be done again."""
    reserve(limited, "one", 400)
    reserve(limited, "two", 300)

    allowances.release(limited, "one")
    allowances.release(limited, "one")

    assert stands(limited) == (0, 300)
    assert [each.holder for each in allowances.list_holders(limited, NOW)] == ["two"]


def test_only_the_silent_are_written_off(sqlite_database: Database) -> None:
    """What a holder holds that was heard of lately is no one's to take, nor that of one nobody knows."""
    database = sqlite_database
    budgets.put(database, budget(), SOMEBODY)
    reserve(database, "one", 400)

    with pytest.raises(Conflict, match="stop it first"):
        allowances.write_off(database, "one", SOMEBODY)
    with pytest.raises(NotFound, match="--holders"):
        allowances.write_off(database, "nobody", SOMEBODY)
    assert not allowances.list_holders(database, NOW)[0].stranded
    assert allowances.list_holders(database, LATER)[0].stranded

    assert allowances.write_off(database, "one", Signature("test", LATER)) == 1
    assert stands(database) == (0, 0)


def test_a_late_event_of_one_written_off_takes_nothing_of_others(sqlite_database: Database) -> None:
    """When the journal of a holder that was written off turns up, what others have reserved stays theirs."""
    database = sqlite_database
    budgets.put(database, budget(), SOMEBODY)
    share = reserve(database, "one", 400).shares[0]
    assert share is not None
    allowances.write_off(database, "one", Signature("test", LATER))
    reserve(database, "two", 500)

    event = make_event(new_event_id(Random(1)), cost=400, reserved=(Reserved(share.allowance_id, 400),))
    ledger.append(database, [event], NOW)

    assert stands(database) == (400, 500)


def test_a_beat_tells_everything_that_is_held(limited: Database) -> None:
    """A heartbeat brings the budgets, every allowance of the holder, and what is left of each window."""
    reserve(limited, "two", 300)
    share = reserve(limited, "one", 400).shares[0]
    assert share is not None

    beat = allowances.beat(limited, "one", NOW, holds=True)

    assert [each.id for each in beat.budgets] == ["b"]
    assert beat.shares == {share.allowance_id: share}
    assert share.room == 300


def test_empty_allowances_of_ended_windows_go(sqlite_database: Database) -> None:
    """A process that runs for long does not gather an allowance for each hour that has passed."""
    database = sqlite_database
    budgets.put(database, budget(period="hour"), SOMEBODY)
    share = reserve(database, "one", 400).shares[0]
    assert share is not None

    def after(hours: int) -> int:
        at: datetime = NOW + timedelta(hours=hours)
        return len(allowances.beat(database, "one", at, holds=True).shares)

    assert after(3) == 1
    allowances.give_back(database, "one", {share.allowance_id: 400}, NOW)
    assert (after(0), after(3)) == (1, 0)


def test_without_its_budget_a_request_passes(limited: Database) -> None:
    """A window whose budget was removed limits nobody, and nothing is held of it."""
    (found,) = budgets.load(limited)
    budgets.remove(limited, found.id, SOMEBODY)

    answer = allowances.reserve(limited, "one", [wish(found, need=10**6)], [Ask({0: 10**6})], NOW)

    assert answer == Answer([None], [None])


def test_many_at_once(postgres_database: Database) -> None:
    """Four levels, random subsets, appending, reserving, returning and releasing at once: no deadlock."""
    database = postgres_database
    levels = [
        budget(id="org", limit=10**6),
        budget(id="team", owner_kind=OwnerKind.TEAM, owner_id="team", measure=Measure.TOKENS, limit=10**6),
        budget(id="key", owner_kind=OwnerKind.KEY, owner_id="key", period="day", limit=10**6),
        budget(id="model", model="mod*", measure=Measure.REQUESTS, limit=10**4, enforcement=Enforcement.WARN),
    ]
    for level in levels:
        budgets.put(database, level, SOMEBODY)
    before = deadlocks(database)

    def lives(number: int) -> None:
        random, mine, holder = Random(number), second(database), f"holder-{number}"
        try:
            for _ in range(25):
                chosen = random.sample(levels, random.randrange(1, 5))
                wishes = [wish(each, need=10, wanted=random.randrange(100)) for each in chosen]
                needs = {at: random.randrange(20) for at in range(len(chosen))}
                answer = allowances.reserve(mine, holder, wishes, [Ask(needs)], NOW)
                shares = [share for share in answer.shares if share is not None]
                used = tuple(Reserved(share.allowance_id, needs[at]) for at, share in enumerate(shares))
                cost = random.randrange(20)
                event = make_event(new_event_id(random), cost=cost, prompt_tokens=cost, reserved=used)
                ledger.append(mine, [event], NOW)
                if random.random() < 0.3:
                    amounts = {share.allowance_id: random.randrange(30) for share in shares}
                    allowances.give_back(mine, holder, amounts, NOW)
                if random.random() < 0.1:
                    allowances.release(mine, holder)
                if random.random() < 0.1:
                    budgets.standings(mine, NOW)
            allowances.release(mine, holder)
        finally:
            mine.dispose()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lives, range(4)))

    assert ledger.verify(database) == []
    assert [each.reserved for each in budgets.standings(database, NOW)] == [0, 0, 0, 0]
    assert deadlocks(database) == before
