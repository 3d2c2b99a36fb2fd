"""The ledger counts every event once, whatever comes twice, late, or in other portions."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
import pytest
import sqlalchemy as sa

from meter.core.attempts import TOKENS_CHARGED_MAX
from meter.core.events import Outcome, Reserved, UsageEvent, UsageSource
from meter.core.money import PICODOLLARS_PER_USD
from meter.core.period import BUCKET, bucket
from meter.core.rollup import COUNTS, LineKey, Sums, fold
from meter.core.upstream_cost import USD_MAX
from meter.store import ledger
from meter.store.database import Database, RowRefused
from meter.store.tables import usage_15m, usage_events
from tests.store.conftest import NOW, make_event, new_event_id, random_event

RANDOM = Random(1)
ID = new_event_id(RANDOM)
OTHER_ID = new_event_id(RANDOM)


def lines(database: Database) -> dict[LineKey, Sums]:
    """Return the rollup as it is in the database."""
    with database.read() as connection:
        rows = connection.execute(sa.select(usage_15m)).mappings().all()
    keys = LineKey.__struct_fields__
    return {
        LineKey(**{name: row[name] for name in keys}): Sums(**{name: row[name] for name in COUNTS})
        for row in rows
    }


def count(database: Database) -> int:
    """Count the events in the database."""
    with database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(usage_events)) or 0


@contextmanager
def statements() -> Iterator[list[str]]:
    """Watch the statements that go to any database."""
    seen: list[str] = []

    def note(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def tamper(database: Database, statement: sa.Executable) -> None:
    """Write past the ledger."""
    with database.write() as connection:
        connection.execute(statement)


FULL = make_event(
    ID,
    stream=True,
    status=200,
    model_served="served",
    service_tier="flex",
    upstream_id="gen-1",
    finish_reasons=("stop", "length"),
    prompt_tokens=10,
    completion_tokens=5,
    cached_tokens=4,
    cache_write_tokens=2,
    reasoning_tokens=3,
    cache_write_1h_tokens=1,
    input_audio_tokens=6,
    output_audio_tokens=7,
    usage_raw='{"prompt_tokens":10,"☃":1}',
    anomalies=("total_mismatch",),
    cost=2**62,
    price_id=2**53 + 1,
    upstream_cost=2**62 + 1,
    upstream_cost_source="usage.cost",
    ttfb_ms=12,
    duration_ms=345,
    end_user="☃ u-1",
    tags=("a", "b,c", '"d"'),
    cost_bound=2**62 + 2,
    reserved=(Reserved(7, 2**40), Reserved(8, 1)),
    corrects_id="019ab1c2-0000-7000-8000-00000000000c",
    priced_tokens=15,
    counted_at=NOW,
    actor="finance@example.com",
    reason="the price was wrong",
)


@pytest.mark.parametrize(
    "event",
    [
        FULL,
        make_event(ID),
        make_event(ID, cost=0, upstream_cost=0, tags=(), end_user=""),
        *(make_event(ID, outcome=outcome) for outcome in Outcome),
        *(make_event(ID, usage_source=source) for source in UsageSource),
        make_event(ID, prompt_tokens=2**61, completion_tokens=2**61, cached_tokens=2**61),
    ],
)
def test_every_field_comes_back(database: Database, event: UsageEvent) -> None:
    """An event comes back from the database exactly as it went in: unpriced is not free."""
    ledger.append(database, [event], NOW)

    assert ledger.find(database, ID) == event
    assert ledger.verify(database) == []


def test_every_field_of_the_example_is_set() -> None:
    """The example differs from the defaults in every field, so that none is compared with itself."""
    plain = make_event(ID)
    same = {
        name
        for name in UsageEvent.__struct_fields__
        if getattr(FULL, name) == getattr(plain, name) and name in ("cost", "tags", "usage_raw", "stream")
    }

    assert same == set()
    assert all(getattr(FULL, name) not in (None, ()) for name in UsageEvent.__struct_fields__)


def test_an_unknown_event_is_not_found(database: Database) -> None:
    """An id that no event has finds nothing."""
    ledger.append(database, [make_event(ID)], NOW)

    assert ledger.find(database, OTHER_ID) is None
    assert ledger.find(database, "nonsense") is None


@pytest.mark.parametrize("written", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}"])
def test_an_id_may_be_written_in_any_way(database: Database, written: str) -> None:
    """However somebody writes an id, it finds its event."""
    event = make_event(ID)
    ledger.append(database, [event], NOW)

    assert ledger.find(database, written) == event


def test_an_event_remembers_when_it_was_posted(database: Database) -> None:
    """When an event reached the ledger stands beside when it began."""
    ledger.append(database, [make_event(ID)], NOW + timedelta(seconds=9))

    with database.read() as connection:
        posted_at = connection.scalar(sa.select(usage_events.c.posted_at))
    assert posted_at == NOW + timedelta(seconds=9)


def test_no_events_are_no_work(database: Database) -> None:
    """Appending nothing opens no transaction."""
    with statements() as seen:
        appended = ledger.append(database, [], NOW)

    assert appended == 0
    assert seen == []


def test_what_is_delivered_twice_counts_once(database: Database) -> None:
    """A batch whose first delivery was not known to have arrived is appended and folded once."""
    batch = [make_event(ID, prompt_tokens=3), make_event(OTHER_ID, prompt_tokens=4)]

    first = ledger.append(database, batch, NOW)
    second = ledger.append(database, batch, NOW + timedelta(hours=1))

    assert (first, second) == (2, 0)
    assert count(database) == 2
    assert lines(database) == fold(batch)


def test_an_event_that_stands_twice_in_a_batch_counts_once(database: Database) -> None:
    """A batch may hold an event twice."""
    event = make_event(ID, prompt_tokens=3)

    appended = ledger.append(database, [event, event], NOW)

    assert appended == 1
    assert lines(database) == fold([event])


def test_what_is_new_in_a_batch_is_appended(database: Database) -> None:
    """Of a batch that is there in part, the rest is appended."""
    old, new = make_event(ID, prompt_tokens=3), make_event(OTHER_ID, prompt_tokens=4)
    ledger.append(database, [old], NOW)

    appended = ledger.append(database, [old, new], NOW)

    assert appended == 1
    assert lines(database) == fold([old, new])


def test_the_first_delivery_stands(database: Database) -> None:
    """An event that comes again with other numbers changes nothing: the ledger is append-only."""
    first = make_event(ID, prompt_tokens=3)
    ledger.append(database, [first], NOW)

    ledger.append(database, [make_event(ID, prompt_tokens=999, outcome=Outcome.INTERRUPTED)], NOW)

    assert ledger.find(database, ID) == first
    assert lines(database) == fold([first])


def deliveries(random: Random, events: Sequence[UsageEvent]) -> Iterator[list[UsageEvent]]:
    """Deliver events in random order and portions, some of them again and again."""
    pending = [*events, *random.choices(events, k=len(events))]
    random.shuffle(pending)
    while pending:
        size = random.choice([1, 2, 7, 50])
        yield pending[:size]
        pending = pending[size - random.choice([0, size // 2]) or 1 :]


@pytest.mark.parametrize("seed", range(12))
def test_any_delivery_adds_up_to_the_same(database: Database, seed: int) -> None:
    """In any order, with any duplication and any batching the rollup is the sum of the distinct events."""
    random = Random(seed)
    events = [random_event(random, NOW - timedelta(hours=3), NOW) for _ in range(random.randrange(1, 120))]

    appended = sum(ledger.append(database, batch, NOW) for batch in deliveries(random, events))

    assert appended == len(events)
    assert lines(database) == fold(events)
    assert ledger.verify(database) == []


def test_a_large_batch_is_appended_whole(database: Database) -> None:
    """A batch larger than a statement's parameters allow is appended in one transaction."""
    random = Random(5)
    events = [random_event(random, NOW - timedelta(days=2), NOW) for _ in range(6000)]

    appended = ledger.append(database, events, NOW)

    assert appended == 6000
    assert lines(database) == fold(events)
    assert ledger.verify(database) == []


@pytest.mark.parametrize("total", [7, 8, 9, 63, 64, 65, 72, 73, 137])
def test_a_batch_of_any_size_is_appended(database: Database, total: int) -> None:
    """However many events share a statement, each of them lands."""
    events = [make_event(new_event_id(RANDOM), key_id=f"k{number}") for number in range(total)]

    appended = ledger.append(database, events, NOW)

    assert appended == count(database) == total
    assert lines(database) == fold(events)
    assert ledger.verify(database) == []


def test_a_batch_is_appended_whole_or_not_at_all(database: Database) -> None:
    """One event that cannot be stored takes its batch back, events and rollup."""
    good = make_event(ID, prompt_tokens=3)
    bad = msgspec.structs.replace(good, event_id=OTHER_ID, started_at=datetime(2026, 11, 23))  # noqa: DTZ001 (what must be refused)

    with pytest.raises(RowRefused, match="naive time"):
        ledger.append(database, [good, bad], NOW)

    assert count(database) == 0
    assert lines(database) == {}


def test_events_are_never_changed(database: Database) -> None:
    """Whatever is delivered, no statement updates or deletes an event."""
    random = Random(7)
    events = [random_event(random, NOW - timedelta(hours=1), NOW) for _ in range(50)]

    with statements() as seen:
        for batch in deliveries(random, events):
            ledger.append(database, batch, NOW)
        ledger.verify(database)
        ledger.find(database, events[0].event_id)

    touching = [
        text for text in seen if " usage_events" in text and not text.startswith(("CREATE TEMPORARY", "LOCK"))
    ]
    assert touching
    assert {text.split()[0].upper() for text in touching} == {"INSERT", "SELECT"}
    assert not any("DO UPDATE" in text.upper() for text in touching)
    assert not any("REPLACE" in text.upper() for text in touching)


def test_events_and_rollup_are_written_in_one_transaction(database: Database) -> None:
    """Between the events and their sums there is no moment at which only one of them is there."""
    with statements() as seen:
        ledger.append(database, [make_event(ID)], NOW)

    # PostgreSQL's driver begins by itself, and takes the events by COPY, which SQLAlchemy doesn't see. First
    # it keeps budgets from being made and months from being closed, and asks which months are, and where the
    # ledger begins; at the end comes the question which budgets there are.
    sums = ["INSERT"] * 3
    verbs = [text.split()[0].upper() for text in seen]
    assert verbs in (
        ["BEGIN", "SELECT", "SELECT", "SAVEPOINT", "INSERT", "RELEASE", *sums, "SELECT"],
        ["SELECT", "SELECT", "SELECT", "SAVEPOINT", "RELEASE", *sums, "SELECT"],
    )


def test_an_empty_ledger_is_right(database: Database) -> None:
    """With no events there is nothing to disagree about."""
    assert ledger.verify(database) == []


@pytest.mark.parametrize("name", COUNTS)
def test_a_changed_sum_is_found(database: Database, name: str) -> None:
    """Verifying names the line, the sum, what it is and what it should be."""
    ledger.append(database, [make_event(ID, prompt_tokens=3)], NOW)
    before = getattr(next(iter(lines(database).values())), name)
    tamper(database, sa.update(usage_15m).values({name: usage_15m.c[name] + 1}))

    (mismatch,) = ledger.verify(database)

    assert f"{name} {before + 1} instead of {before}" in mismatch
    for part in ("2026-11-23T12:30:00+00:00", "team team", "key key", "upstream", "model"):
        assert part in mismatch


def test_a_missing_line_is_found(database: Database) -> None:
    """A line that is gone is missed."""
    ledger.append(database, [make_event(ID, prompt_tokens=3)], NOW)
    tamper(database, sa.delete(usage_15m))

    (mismatch,) = ledger.verify(database)

    assert "requests 0 instead of 1" in mismatch
    assert "prompt_tokens 0 instead of 3" in mismatch


def test_an_extra_line_is_found(database: Database) -> None:
    """A line without events is one too many, also if it is empty."""
    key = {"team_id": "t", "key_id": "k", "upstream": "u", "model": "m"}
    later = bucket(NOW) + BUCKET
    tamper(database, sa.insert(usage_15m).values(bucket=bucket(NOW), requests=2, **key))
    tamper(database, sa.insert(usage_15m).values(bucket=later, **key))

    full, empty = ledger.verify(database)

    assert "requests 2 instead of 0" in full
    assert "an empty line" in empty


def test_a_changed_event_is_found(database: Database) -> None:
    """An event that was changed by hand no longer agrees with its line."""
    ledger.append(database, [make_event(ID, cost=5)], NOW)
    tamper(database, sa.update(usage_events).values(cost=6))

    mismatches = ledger.verify(database)

    assert all("cost 5 instead of 6" in mismatch for mismatch in mismatches)
    assert [mismatch.split()[0] for mismatch in mismatches] == ["usage_15m", "usage_days", "usage_months"]


def test_an_event_that_was_moved_is_found(database: Database) -> None:
    """An event under another key leaves its line, and lacks one there."""
    ledger.append(database, [make_event(ID)], NOW)
    tamper(database, sa.update(usage_events).values(key_id="other"))

    mismatches = ledger.verify(database)

    # In each of the three tables.
    assert len(mismatches) == 3 * 2


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("total", [1, 5])
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": TOKENS_CHARGED_MAX, "completion_tokens": TOKENS_CHARGED_MAX},
        {"prompt_tokens": TOKENS_CHARGED_MAX, "cost": 0},
        {"upstream_cost": USD_MAX * PICODOLLARS_PER_USD},
    ],
)
def test_numbers_that_an_upstream_makes_up_stop_nothing(
    database: Database, fields: dict[str, object], total: int, together: bool
) -> None:
    """Events with the largest numbers that the reading of usage lets pass land, and the sums stay right."""
    events = [make_event(new_event_id(RANDOM), **fields) for _ in range(total)]

    for batch in [events] if together else [[event] for event in events]:
        ledger.append(database, batch, NOW)

    assert count(database) == total
    assert ledger.verify(database) == []
    assert lines(database) == fold(events)


@pytest.mark.parametrize("name", ['"', "\\", '\\"', "a,b", "{}", "NULL", "", " ", "☃\n\t'", "%s", "$1", "?"])
def test_names_of_any_characters_are_told_apart(database: Database, name: str) -> None:
    """Whatever models and upstreams are called, their lines are theirs."""
    names = [name, f"{name}x", f"y{name}", "other"]
    events = [
        make_event(new_event_id(RANDOM), model_requested=model, upstream=upstream, cost=2**40)
        for model in names
        for upstream in names
    ]

    ledger.append(database, events, NOW)
    ledger.append(database, [make_event(new_event_id(RANDOM), model_requested=name, upstream=name)], NOW)

    assert len(lines(database)) == len(events)
    assert ledger.verify(database) == []


def test_lists_are_stored_as_json(database: Database) -> None:
    """Tags, reasons and anomalies are JSON arrays, which other programs can read."""
    ledger.append(database, [FULL], NOW)

    with database.read() as connection:
        names = ("tags", "finish_reasons", "anomalies")
        row = connection.execute(sa.select(*(sa.cast(usage_events.c[name], sa.Text) for name in names))).one()
    assert [json.loads(text) for text in row] == [["a", "b,c", '"d"'], ["stop", "length"], ["total_mismatch"]]


def test_instants_are_stored_in_utc(database: Database) -> None:
    """An event that began in another zone lies in the quarter hour of its instant."""
    event = make_event(ID, started_at=datetime.fromisoformat("2026-11-23T18:14:59+05:30"))

    ledger.append(database, [event], NOW)

    (key,) = lines(database)
    assert key.bucket == datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
    assert ledger.verify(database) == []
