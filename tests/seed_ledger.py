"""Fill an empty database with made-up events of many months: `python -m tests.seed_ledger URL --events N`.

Keys are used as in companies: a few of them much and most of them little, each with a few models, more by day
than by night, and in bursts. How many lines the rollup has and how many events is told apart, so that the
same lines can hold a tenth of the events. The same arguments make the same events on every database.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby, islice
from operator import itemgetter
from random import Random
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.core.prices import Price, Rates, quote
from meter.core.rollup import Sums, fold
from meter.store import prices, rollup, staging
from meter.store.database import Database
from meter.store.partitions import make_partitions
from meter.store.sqlite import time_text
from meter.store.tables import api_keys, teams, usage_events

UNTIL = datetime(2026, 12, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
MODELS_OF_A_KEY_MAX = 4
ROWS_PER_WRITE = 500
STATEMENT_SECONDS = 3600.0
MAKERS = ("anthropic", "google", "openai", "mistral")
# How busy each hour of the day is.
BUSY = (1, 1, 1, 1, 1, 2, 3, 6, 10, 12, 12, 11, 9, 11, 12, 12, 11, 9, 6, 4, 3, 2, 2, 1)
WEEKEND_SHARE = 0.3
UNPRICED_MODELS = 2
_NO_ID = "00000000-0000-0000-0000-000000000000"
# What an event does not share with the others of its burst.
_OWN = ("event_id", "started_at")
_COLUMNS = (*_OWN, *(name for name in staging.NAMES if name not in _OWN))


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


class Burst(NamedTuple):
    """Events of one use within a quarter hour, all of them alike."""

    event: UsageEvent
    events: int
    entropy: int


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
    for day, bursts in groupby(_bursts(shape, uses, random), lambda burst: burst.event.started_at.date()):
        _insert(database, list(bursts))
        if day.day == 1:
            # SQLite's log would grow to the size of the ledger.
            database.checkpoint()
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


def _bursts(shape: Shape, uses: list[Use], random: Random) -> Iterator[Burst]:
    """Yield what is used, in the order of time."""
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
            yield Burst(_event(use, quarter, random), events, random.getrandbits(80))


def _event(use: Use, quarter: datetime, random: Random) -> UsageEvent:
    prompt, completion = random.randint(50, 20_000), random.randint(5, 2_000)
    event = UsageEvent(
        event_id=_NO_ID,
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
    if use.price is None:
        return event
    return msgspec.structs.replace(event, cost=quote(use.price, event.usage).cost)


def _insert(database: Database, bursts: list[Burst]) -> None:
    """Append what the server would append, a day at a time, but for the look whether it is there already."""
    lines = {key: _times(line, burst.events) for burst in bursts for key, line in fold([burst.event]).items()}
    with database.write_long(STATEMENT_SECONDS) as connection:
        _load(connection, usage_events.name, _COLUMNS, _rows(connection.dialect, bursts))
        rollup.add(connection, lines)


def _times(line: Sums, count: int) -> Sums:
    return Sums(**{name: value * count for name, value in msgspec.structs.asdict(line).items()})


def _rows(dialect: sa.Dialect, bursts: list[Burst]) -> Iterator[tuple[object, ...]]:
    """Yield the events of bursts as the driver takes them."""
    day_after = bursts[-1].event.started_at + timedelta(days=1)
    converted = staging.rows(dialect, [burst.event for burst in bursts], day_after)
    own = [at for at, name in enumerate(staging.NAMES) if name not in _OWN]
    rest_of = itemgetter(*own)
    for burst, row in zip(bursts, converted, strict=True):
        rest = rest_of(row)
        quarter = burst.event.started_at
        at_ms = int(quarter.timestamp() * 1000)
        for number in range(burst.events):
            later_ms = number * 900_000 // burst.events
            entropy = (burst.entropy + number * 0x9E3779B97F4A7C15) & (1 << 80) - 1
            event_id = uuid7(at_ms + later_ms, entropy.to_bytes(10, "big"))
            # Either database reads ids without their dashes, and SQLite keeps them so.
            yield (event_id.replace("-", ""), time_text(quarter + timedelta(milliseconds=later_ms)), *rest)


def _load(
    connection: sa.Connection, table: str, columns: Iterable[str], rows: Iterable[Iterable[object]]
) -> None:
    """Put rows into a table, the driver's fastest way."""
    names = list(columns)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" for _ in names)
        driver.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", map(tuple, rows))  # noqa: S608 (names of ours)
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        lines = iter(rows)
        while some := list(islice(lines, ROWS_PER_WRITE)):
            copy.write("".join("\t".join(map(_text, row)) + "\n" for row in some))


def _text(value: object) -> str:
    """Write a value as COPY reads it; none of ours has anything to escape."""
    return "\\N" if value is None else str(value)


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
