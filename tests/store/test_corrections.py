"""Corrections in the ledger: events are rated again as often as anybody likes, and all sums agree."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count as counter
from random import Random

import pytest
import sqlalchemy as sa

from meter.app.repricing import reprice
from meter.core.audit import Signature
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.corrections import Account, Cause, correction_id
from meter.core.events import UsageEvent, UsageSource
from meter.core.months import parse_month
from meter.core.period import Period
from meter.core.prices import Price, PriceBook, Rates, rate
from meter.core.reports import Question
from meter.core.repricing import Repricing, Selection
from meter.core.rollup import Sums, fold
from meter.store import budgets, corrections, ledger, months, prices, reports
from meter.store.database import Database
from meter.store.tables import usage_events
from tests.store.conftest import NOW, make_event, new_event_id, random_event, second
from tests.store.test_ledger import count, lines

CAUSE = Cause("somebody@host", "the price was wrong")
SINCE = datetime(2026, 8, 1, tzinfo=UTC)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
WAIT_SECONDS_MAX = 60.0
RANDOM = Random(1)


def add_price(database: Database, model: str, prompt: int, completion: int = 0, **fields: object) -> None:
    """Add a version to the book."""
    values: dict[str, object] = {
        "id": 0,
        "catalog": "",
        "model": model,
        "effective_from": BEGINNING,
        "rates": Rates(prompt=prompt, completion=completion),
        "source": "set",
        "created_at": NOW,
    }
    prices.add(database, [Price(**values | fields)])  # type: ignore[arg-type]


def book(database: Database) -> PriceBook:
    """Load the book as it is now."""
    return PriceBook(prices.load(database))


def run(
    database: Database,
    *,
    apply: bool = True,
    since: datetime = SINCE,
    until: datetime = NOW + timedelta(days=1),
    now: Callable[[], datetime] = lambda: NOW,
    model: str | None = None,
) -> Repricing:
    """Rate again."""
    asked = Selection(since=since, until=until, tz=UTC, model=model)
    return reprice(database, book(database), asked, CAUSE, now, apply=apply)


def costs(database: Database, *events: UsageEvent) -> list[int | None]:
    """Return what events cost now."""
    return [account_of(database, event).cost for event in events]


def account_of(database: Database, event: UsageEvent) -> Account:
    """Find the account of an event that is there."""
    found = corrections.find(database, event.event_id)
    assert found is not None
    return found


def total(database: Database, *by: str, since: datetime = SINCE, until: datetime | None = None) -> Sums:
    """Return the total of a report."""
    question = Question(by=by, since=since, until=until or NOW + timedelta(days=400), tz=UTC)
    return reports.answer(database, question).total


def assert_agreement(database: Database) -> None:
    """Ledger, rollup and reports say the same, and corrections belong to events."""
    assert ledger.verify(database) == []
    assert corrections.verify(database) == []
    assert total(database, "model") == total(database, "user")


def used(**fields: object) -> UsageEvent:
    """Make an event that used something."""
    return make_event(new_event_id(RANDOM), prompt_tokens=100, completion_tokens=10, **fields)


def test_what_was_unpriced_is_rated_when_its_price_arrives(database: Database) -> None:
    """From an unknown model to a cost: nothing is unpriced any more, and everything still agrees."""
    event = rate(used(upstream_cost=999), book(database))
    ledger.append(database, [event], NOW)
    assert (event.cost, total(database).unpriced_requests, total(database).unpriced_tokens) == (None, 1, 110)
    add_price(database, "model", 3, 15)

    told = run(database)

    assert (told.total.events, told.total.unpriced_before, told.total.new_cost) == (1, 1, 450)
    sums = total(database, "model")
    assert (sums.requests, sums.cost, sums.unpriced_requests, sums.unpriced_tokens) == (1, 450, 0, 0)
    assert (sums.compared_cost, sums.compared_upstream_cost, sums.upstream_cost) == (450, 999, 999)
    assert costs(database, event) == [450]
    assert_agreement(database)


def test_a_dry_run_changes_nothing(database: Database) -> None:
    """Without applying, the differences are told and the ledger stays as it is."""
    ledger.append(database, [used(), used(cost=1, price_id=77)], NOW)
    add_price(database, "model", 3, 15)
    before = lines(database)

    dry = run(database, apply=False)

    assert (count(database), lines(database)) == (2, before)
    applied = run(database)
    assert (dry.rows(), dry.total) == (applied.rows(), applied.total)


def test_rating_twice_appends_nothing_the_second_time(database: Database) -> None:
    """A second run finds no difference and appends no entry."""
    ledger.append(database, [used() for _ in range(5)], NOW)
    add_price(database, "model", 3)
    run(database)
    entries, sums = count(database), lines(database)

    again = run(database)

    assert (again.total.events, again.looked_at) == (0, 5)
    assert (count(database), lines(database)) == (entries, sums)


def test_history_is_never_edited(database: Database) -> None:
    """An event that was corrected is still there as it was recorded."""
    event = used(cost=1, price_id=77)
    ledger.append(database, [event], NOW)
    for prompt in (3, 4, 5):
        add_price(database, "model", prompt)
        run(database)

    assert ledger.find(database, event.event_id) == event
    account = account_of(database, event)
    assert [entry.event.cost for entry in account.corrections] == [299, 100, 100]
    assert account.cost == 500
    assert_agreement(database)


def test_requests_on_both_sides_of_a_change_get_their_own_price(database: Database) -> None:
    """A millisecond before a change and at it are two versions, when recorded and when rated again."""
    at = NOW - timedelta(hours=1)
    add_price(database, "model", 3)
    add_price(database, "model", 5, effective_from=at)
    sides = (at - timedelta(milliseconds=1), at)
    rated = [rate(used(started_at=side), book(database)) for side in sides]
    unrated = [used(started_at=side) for side in sides]
    ledger.append(database, [*rated, *unrated], NOW)

    run(database)

    assert [event.cost for event in rated] == [300, 500]
    assert costs(database, *rated, *unrated) == [300, 500, 300, 500]
    assert all(account_of(database, event).corrections == () for event in rated)

    add_price(database, "model", 7)
    add_price(database, "model", 9, effective_from=at)
    run(database)
    assert costs(database, *rated, *unrated) == [300, 900, 300, 900] or costs(database, *rated, *unrated) == [
        700,
        900,
        700,
        900,
    ]
    assert_agreement(database)


def test_what_never_changes(database: Database) -> None:
    """What used nothing stays free, and what has a cost keeps it when its price has gone."""
    refused = make_event(new_event_id(RANDOM), usage_source=UsageSource.NONE, cost=0)
    gone = used(cost=5, price_id=77, model_requested="gone")
    ledger.append(database, [refused, gone], NOW)
    add_price(database, "model", 3, rates=Rates(prompt=3, completion=3, request=1000))

    told = run(database)

    assert (told.total.events, told.looked_at) == (0, 1)
    assert costs(database, refused, gone) == [0, 5]


def test_bounds_and_patterns_limit_what_is_rated(database: Database) -> None:
    """The beginning is included and the end is not; models are meant by a pattern."""
    edges = [NOW - timedelta(hours=hours) for hours in (3, 2, 1)]
    events = [used(started_at=edge) for edge in edges]
    other = used(started_at=edges[1], model_requested="other")
    ledger.append(database, [*events, other], NOW)
    for model in ("model", "other"):
        add_price(database, model, 3)

    run(database, since=edges[1], until=edges[2], model="mod*")

    assert costs(database, *events, other) == [None, 300, None, None]


@pytest.mark.parametrize("instants", [1, 3, 5000])
def test_many_events_are_rated_page_by_page(
    database: Database, instants: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pages of events, also of one instant, are each rated once."""
    monkeypatch.setattr(corrections, "EVENTS_PER_PAGE", 40)
    random = Random(2)
    at = [NOW - timedelta(seconds=number) for number in range(instants)]
    total_events = corrections.EVENTS_PER_PAGE * 2 + 1
    events = [
        make_event(new_event_id(random), started_at=random.choice(at), prompt_tokens=1)
        for _ in range(total_events)
    ]
    ledger.append(database, events, NOW)
    add_price(database, "model", 3)

    told = run(database)

    assert (told.looked_at, told.total.events) == (total_events, total_events)
    assert total(database).cost == 3 * total_events
    assert run(database).total.events == 0
    assert_agreement(database)


def test_a_run_that_is_cut_short_is_finished_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was corrected before a run ended stays, agrees, and is not corrected again by the next run."""
    monkeypatch.setattr(corrections, "EVENTS_PER_PAGE", 10)
    ledger.append(database, [used(started_at=NOW - timedelta(seconds=at)) for at in range(35)], NOW)
    add_price(database, "model", 3)
    times = iter([NOW, NOW])

    with pytest.raises(StopIteration):
        run(database, now=lambda: next(times))

    assert total(database).unpriced_requests == 15
    assert_agreement(database)
    assert run(database).total.events == 15
    assert total(database).cost == 35 * 300
    assert_agreement(database)


def test_two_at_once_correct_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs at the same time, with the same book, every event is corrected by one."""
    monkeypatch.setattr(corrections, "EVENTS_PER_PAGE", 40)
    random = Random(4)
    events = [
        make_event(new_event_id(random), started_at=NOW - timedelta(seconds=number), prompt_tokens=1, cost=7)
        for number in range(300)
    ]
    ledger.append(database, events, NOW)
    add_price(database, "model", 3)
    found = at_once(database, [book(database)] * 3)

    assert sum(told.total.events for told in found) == len(events)
    assert total(database).cost == 3 * len(events)
    assert count(database) == 2 * len(events)
    assert_agreement(database)


def test_two_at_once_with_other_books_end_at_one_of_them(database: Database) -> None:
    """Runs with an older and a newer book leave every event at the price of one of them."""
    events = [used(started_at=NOW - timedelta(seconds=number)) for number in range(100)]
    ledger.append(database, events, NOW)
    add_price(database, "model", 3)
    older = book(database)
    add_price(database, "model", 5)
    at_once(database, [older, book(database)])

    run(database, now=lambda: NOW + timedelta(seconds=1))

    assert set(costs(database, *events[:50])) <= {300, 500}
    assert_agreement(database)


def at_once(database: Database, books: list[PriceBook]) -> list[Repricing]:
    """Rate again by several books at once, each like another server."""
    asked = Selection(since=SINCE, until=NOW + timedelta(days=1), tz=UTC)
    gate = threading.Barrier(len(books))
    found: list[Repricing] = []

    def work(opened: Database, mine: PriceBook) -> None:
        gate.wait(WAIT_SECONDS_MAX)
        found.append(reprice(opened, mine, asked, CAUSE, lambda: NOW, apply=True))
        opened.dispose()

    threads = [threading.Thread(target=work, args=(second(database), mine)) for mine in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)
    assert len(found) == len(books)
    return found


def test_corrections_of_a_closed_month_count_in_the_open_one(database: Database) -> None:
    """A closed month's sums stay, and the open one shows what it corrects, and by how much."""
    october = parse_month("2026-10")
    event = used(started_at=october.start + timedelta(days=3), cost=1000, price_id=77)
    ledger.append(database, [event], NOW)
    months.close(database, october, Signature("finance@host", NOW))
    before = total(database, since=october.start, until=october.end)
    add_price(database, "model", 3)

    told = run(database)

    assert (told.of_closed_months.events, told.of_closed_months.new_cost) == (1, 300)
    assert total(database, since=october.start, until=october.end) == before
    november = total(database, "model", since=october.end)
    assert (november.requests, november.cost) == (0, -700)
    assert (november.corrections, november.correction_cost) == (1, -700)
    assert_agreement(database)


def test_an_event_is_found_by_its_id_and_by_its_corrections(database: Database) -> None:
    """The account of an event is found by its own id, however written, and by that of a correction."""
    event = used()
    ledger.append(database, [event], NOW)
    add_price(database, "model", 3)
    run(database)
    price_id = prices.latest_id(database)
    account = account_of(database, event)

    for event_id in (event.event_id.upper(), correction_id(event.event_id, price_id)):
        assert corrections.find(database, event_id) == account
    assert corrections.find(database, new_event_id(RANDOM)) is None
    assert corrections.names(database, event) == ("team", "key")


def test_a_correction_without_its_event_is_found(database: Database) -> None:
    """Verifying names a correction whose event is not there, or that corrects a correction."""
    event = used()
    ledger.append(database, [event], NOW)
    lost = used(corrects_id=new_event_id(RANDOM), price_id=1, cost=1)
    of_correction = used(corrects_id=lost.event_id, price_id=1, cost=1)
    ledger.append(database, [lost, of_correction], NOW)

    mismatches = corrections.verify(database)

    assert sorted(mismatches) == sorted(
        f"correction {each.event_id}: there is no event {each.corrects_id}" for each in (lost, of_correction)
    )


def test_two_corrections_by_one_version_are_found(database: Database) -> None:
    """Verifying names an event that was corrected twice by the same version, and that version."""
    event = used()
    twice = [used(corrects_id=event.event_id, price_id=5, cost=1) for _ in range(2)]
    ledger.append(database, [event, *twice], NOW)

    assert corrections.verify(database) == [
        f"event {event.event_id} is corrected 2 times by the price version 5"
    ]


def test_corrections_change_no_entry(database: Database) -> None:
    """Rating again only reads and inserts."""
    ledger.append(database, [used(cost=1)], NOW)
    add_price(database, "model", 3)
    seen: list[str] = []

    def note(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    run(database)
    sa.event.remove(sa.Engine, "before_cursor_execute", note)

    touching = [text for text in seen if " usage_events" in text and not text.startswith("CREATE TEMPORARY")]
    # A lock that readers share keeps events from leaving meanwhile, and changes none.
    # PostgreSQL's driver takes entries by COPY, which SQLAlchemy doesn't see.
    verbs = {text.split()[0].upper() for text in touching} - {"LOCK"}
    assert {"SELECT"} <= verbs <= {"INSERT", "SELECT"}


def budget(**fields: object) -> Budget:
    """Make a budget, whose windows `meter verify` compares with the ledger."""
    values: dict[str, object] = {
        "id": "-".join(map(str, fields.values())),
        "owner_kind": OwnerKind.ORG,
        "measure": Measure.COST,
        "limit": 10**15,
        "enforcement": Enforcement.WARN,
    }
    return Budget(**values | fields)  # type: ignore[arg-type]


BUDGETS = (
    budget(period="month"),
    budget(period="week", model="m?", tz="Asia/Kolkata"),
    budget(period="total", owner_kind=OwnerKind.TEAM, owner_id="t1"),
    budget(period="week", measure=Measure.TOKENS, owner_kind=OwnerKind.KEY, owner_id="k1"),
)


class Story:
    """A ledger to which anything happens in any order, and what must hold whatever it was."""

    MODELS = ("m1", "m2", "m3")

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = Random(seed)
        self._events: list[UsageEvent] = []
        self._ticks: Iterator[int] = counter()
        self._open = [parse_month(text) for text in ("2026-08", "2026-09", "2026-10")]
        self._closed: list[tuple[Period, Sums]] = []
        self._expected: dict[str, int | None] = {}
        for budget in BUDGETS:
            budgets.put(database, budget, Signature("somebody", NOW))

    def happen(self, steps: int) -> None:
        """Let things happen."""
        acts = (self._append, self._append, self._redeliver, self._set_price, self._reprice, self._close)
        for _ in range(steps):
            self._random.choice(acts)()

    def _now(self) -> datetime:
        return NOW + timedelta(minutes=next(self._ticks))

    def _append(self) -> None:
        found = book(self._database)
        fresh = [
            rate(self._unrated(), found) if self._random.random() < 0.8 else self._unrated()
            for _ in range(self._random.randrange(1, 20))
        ]
        assert ledger.append(self._database, fresh, self._now()) == len(fresh)
        self._events += fresh
        self._expected |= {event.event_id: event.cost for event in fresh}

    def _unrated(self) -> UsageEvent:
        event = random_event(self._random, SINCE, NOW)
        values = {name: getattr(event, name) for name in UsageEvent.__struct_fields__}
        nothing = event.usage_source is UsageSource.NONE
        # Parts are within their wholes, as the reading of usage makes sure.
        sizes = {"cached_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0}
        return UsageEvent(**values | sizes | {"cost": 0 if nothing else None})

    def _redeliver(self) -> None:
        if self._events:
            again = self._random.choices(self._events, k=self._random.randrange(1, 30))
            assert ledger.append(self._database, again, self._now()) == 0

    def _set_price(self) -> None:
        kinds = self._random.choice([{}, {"completion": 7}, {"completion": self._random.randrange(10**6)}])
        add_price(
            self._database,
            self._random.choice(self.MODELS),
            0,
            rates=Rates(prompt=self._random.randrange(10**6), **kinds),
            effective_from=self._random.choice([BEGINNING, SINCE, NOW - timedelta(days=40), NOW]),
        )

    def _reprice(self) -> None:
        since = SINCE + timedelta(days=self._random.randrange(60))
        until = since + timedelta(days=self._random.randrange(1, 90))
        model = self._random.choice([None, None, "m1", "m?"])
        dry = run(self._database, apply=False, since=since, until=until, model=model)
        done = run(self._database, since=since, until=until, model=model, now=self._now)
        assert (done.rows(), done.total, done.of_closed_months) == (
            dry.rows(),
            dry.total,
            dry.of_closed_months,
        )
        assert run(self._database, since=since, until=until, model=model, now=self._now).total.events == 0
        found = book(self._database)
        asked = Selection(since=since, until=until, tz=UTC, model=model)
        for event in self._events:
            if since <= event.started_at < until and asked.holds(event):
                cost = rate(event, found).cost
                if event.usage_source is not UsageSource.NONE and cost is not None:
                    self._expected[event.event_id] = cost

    def _close(self) -> None:
        if self._open and self._random.random() < 0.4:
            month = self._open.pop(self._random.randrange(len(self._open)))
            months.close(self._database, month, Signature("finance@host", self._now()))
            self._closed.append((month, self._sums(month)))

    def _sums(self, month: Period) -> Sums:
        return total(self._database, "model", since=month.start, until=month.end)

    def check(self) -> None:
        """Check all that must hold."""
        assert_agreement(self._database)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(usage_events)).mappings().all()
        assert lines(self._database) == fold(map(ledger.read_event, rows))
        now = total(self._database)
        assert now.requests == len(self._events)
        assert now.cost == sum(cost or 0 for cost in self._expected.values())
        assert now.unpriced_requests == sum(cost is None for cost in self._expected.values())
        for event in self._random.sample(self._events, min(20, len(self._events))):
            assert costs(self._database, event) == [self._expected[event.event_id]]
        for month, sums in self._closed:
            assert self._sums(month) == sums


@pytest.mark.parametrize("seed", range(int(os.environ.get("METER_TEST_STORIES", "3"))))
def test_any_order_of_things_agrees(database: Database, seed: int) -> None:
    """Appended, priced, rated again, closed, late and delivered twice in any order: all sums agree."""
    story = Story(database, seed)

    for _ in range(2):
        story.happen(14)
        story.check()
