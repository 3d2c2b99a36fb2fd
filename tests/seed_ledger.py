"""Fill an empty database with made-up events of many months: `python -m tests.seed_ledger URL --events N`.

Keys are used as in companies: a few of them much and most of them little, each with a few models, more by day
than by night, and in bursts. How many lines the rollup has and how many events is told apart, so that the
same lines can hold a tenth of the events. The same arguments make the same events on every database.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.core.prices import Price, Rates, quote
from meter.core.rollup import fold
from meter.store import prices, rollup, staging
from meter.store.database import Database
from meter.store.partitions import make_partitions
from meter.store.tables import api_keys, teams, usage_events

UNTIL = datetime(2026, 12, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
MODELS_OF_A_KEY_MAX = 4
EVENTS_AT_ONCE = 50_000
STATEMENT_SECONDS = 3600.0
MAKERS = ("anthropic", "google", "openai", "mistral")
# How busy each hour of the day is.
BUSY = (1, 1, 1, 1, 1, 2, 3, 6, 10, 12, 12, 11, 9, 11, 12, 12, 11, 9, 6, 4, 3, 2, 2, 1)
WEEKEND_SHARE = 0.3
UNPRICED_MODELS = 2


class Shape(NamedTuple):
    """How much is made up."""

    events: int
    lines: int
    """Quarter hours in which a key uses a model."""
    months: int = 13
    teams: int = 50
    keys: int = 500
    models: int = 40
    seed: int = 1


class Use(NamedTuple):
    """A key with one of its models."""

    team_id: str
    key_id: str
    model: str
    price: Price | None


def since(shape: Shape) -> datetime:
    """Return when the first month begins."""
    months = UNTIL.year * 12 + UNTIL.month - 1 - shape.months
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def seed(database: Database, shape: Shape) -> None:
    """Make teams, keys, prices, events and their sums in an empty database."""
    random = Random(shape.seed)
    bring_up_to_date(database)
    for number in range(shape.months + 1):
        make_partitions(database, since(shape) + timedelta(days=31 * number))
    uses = _uses(database, shape, random)
    batches = _batches(_lines(shape, uses, random))
    for events in batches:
        _insert(database, events)
    with database.write_long(STATEMENT_SECONDS) as connection:
        connection.exec_driver_sql("ANALYZE")
    database.checkpoint()


def _uses(database: Database, shape: Shape, random: Random) -> list[Use]:
    """Make the teams, keys and prices, and say which key uses which model."""
    models = [f"{MAKERS[number % len(MAKERS)]}/model-{number:02d}" for number in range(shape.models)]
    book = {version.model: version for version in _prices(database, models[UNPRICED_MODELS:])}
    named = [(f"team{number:08d}", f"team {number:02d}") for number in range(shape.teams)]
    keys = [(f"key{number:09d}", f"key {number:03d}") for number in range(shape.keys)]
    with database.write() as connection:
        rows = [{"id": team_id, "name": name, "created_at": since(shape)} for team_id, name in named]
        connection.execute(sa.insert(teams), rows)
        rows = [
            {
                "id": key_id,
                "team_id": named[number % shape.teams][0],
                "name": name,
                "digest": number.to_bytes(32, "big"),
                "created_at": since(shape),
            }
            for number, (key_id, name) in enumerate(keys)
        ]
        connection.execute(sa.insert(api_keys), rows)
    return [
        Use(named[number % shape.teams][0], key_id, model, book.get(model))
        for number, (key_id, _) in enumerate(keys)
        for model in random.sample(models, random.randint(1, min(MODELS_OF_A_KEY_MAX, len(models))))
    ]


def _prices(database: Database, models: list[str]) -> list[Price]:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    rates = [Rates(prompt=10**5 * (1 + at), completion=5 * 10**5 * (1 + at)) for at in range(len(models))]
    versions = [
        Price(
            id=0,
            catalog="",
            model=model,
            effective_from=long_ago,
            rates=each,
            source="seed",
            created_at=long_ago,
        )
        for model, each in zip(models, rates, strict=True)
    ]
    prices.add(database, versions)
    return prices.load(database)


def _lines(shape: Shape, uses: list[Use], random: Random) -> Iterator[list[UsageEvent]]:
    """Yield the events of each line, in the order of time."""
    weights = list(accumulate(1 / (1 + number) ** 0.7 for number in range(len(uses))))
    quarters = [since(shape) + number * QUARTER for number in range((UNTIL - since(shape)) // QUARTER)]
    busy = [BUSY[at.hour] * (WEEKEND_SHARE if at.weekday() > 4 else 1) for at in quarters]
    lines_of_one, events_of_one = shape.lines / sum(busy), shape.events / shape.lines
    owed_lines = owed_events = 0.0
    for quarter, much in zip(quarters, busy, strict=True):
        owed_lines += much * lines_of_one
        count = min(int(owed_lines), len(uses) // 2)
        owed_lines -= int(owed_lines)
        chosen: dict[int, Use] = {}
        while len(chosen) < count:
            number = random.choices(range(len(uses)), cum_weights=weights)[0]
            chosen[number] = uses[number]
        for use in chosen.values():
            owed_events += events_of_one * 2 * random.random()
            events = max(1, int(owed_events))
            owed_events -= events
            yield _line(use, quarter, events, random)


def _line(use: Use, quarter: datetime, count: int, random: Random) -> list[UsageEvent]:
    """Make the events of one burst: they are alike, but for their times."""
    prompt, completion = random.randint(50, 20_000), random.randint(5, 2_000)
    event = UsageEvent(
        event_id="",
        started_at=quarter,
        team_id=use.team_id,
        key_id=use.key_id,
        route="chat.completions",
        upstream="routerhub",
        model_requested=use.model,
        model_served=use.model,
        stream=True,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED if random.random() < 0.95 else UsageSource.ESTIMATED,
        status=200,
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=completion // 3,
        cached_tokens=random.choice([0, 0, prompt // 2]),
        price_id=None if use.price is None else use.price.id,
        finish_reasons=("stop",),
        end_user=f"user-{random.randrange(2000)}",
        tags=random.choice([(), (), ("batch",), ("nightly", "batch")]),
        ttfb_ms=random.randint(100, 3000),
        duration_ms=random.randint(1000, 60_000),
    )
    if use.price is not None:
        event = msgspec.structs.replace(event, cost=quote(use.price, event.usage).cost)
    at_ms, entropy = int(quarter.timestamp() * 1000), random.getrandbits(80)
    made = []
    for number in range(count):
        later = number * 900_000 // count
        event_id = uuid7(
            at_ms + later, (entropy + number * 0x9E3779B97F4A7C15 & (1 << 80) - 1).to_bytes(10, "big")
        )
        started_at = quarter + timedelta(milliseconds=later)
        made.append(msgspec.structs.replace(event, event_id=event_id, started_at=started_at))
    return made


def _batches(lines: Iterator[list[UsageEvent]]) -> Iterator[list[UsageEvent]]:
    """Put lines together to batches; a line stays whole."""
    batch: list[UsageEvent] = []
    for events in lines:
        batch += events
        if len(batch) >= EVENTS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _insert(database: Database, events: list[UsageEvent]) -> None:
    """Append to the ledger as the server does, but for the look whether an event is there already."""
    columns = ", ".join(staging.staged_events.c.keys())
    move = f"INSERT INTO {usage_events.name} ({columns}) SELECT {columns} FROM staged_events"  # noqa: S608 (names of ours)
    with database.write_long(STATEMENT_SECONDS) as connection:
        staging.fill(connection, events, events[-1].started_at)
        connection.exec_driver_sql(move)
        staging.drop(connection)
        rollup.add(database, connection, fold(events))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="sqlite:///path or postgresql://...; an empty database")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    for name in ("months", "teams", "keys", "models", "seed"):
        parser.add_argument(f"--{name}", type=int, default=Shape._field_defaults[name])
    given = vars(parser.parse_args())
    database = Database(given.pop("url"))
    started = time.monotonic()
    seed(database, Shape(**given))
    database.dispose()
    print(f"{given['events']:,} events in {time.monotonic() - started:,.0f} s")  # noqa: T201 (a program)


if __name__ == "__main__":
    main()
