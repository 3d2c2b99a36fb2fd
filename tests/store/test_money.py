"""Many calls of one token each: they add up exactly, and both databases print the same digits.

`METER_TEST_CALLS` says how many; `make money` takes ten million.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from meter.core.events import UsageEvent
from meter.core.prices import Price, PriceBook, Rates, rate
from meter.core.reports import Question, as_json
from meter.store import ledger, reports
from meter.store.database import Database
from meter.store.tables import ROLLUP, usage_events
from tests.store.conftest import NOW, make_event, new_event_id

CALLS = int(os.environ.get("METER_TEST_CALLS", "20000"))
CALLS_IN_A_STATEMENT_MAX = 500_000
# Dollars a million tokens, as providers publish them, and some that nobody would.
PUBLISHED = ("3", "15", "0.3", "3.75", "0.1", "2.5", "0.000001", "99.999999", "0.07", "1234.567891")
SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def published(at: int) -> str:
    """Return a price; they are dealt in turn."""
    return PUBLISHED[at % len(PUBLISHED)]


def book() -> PriceBook:
    """Make a book in which each model has one of the prices, for prompts and completions."""
    return PriceBook(
        Price(
            id=at + 1,
            catalog="",
            model=f"model-{at}",
            effective_from=datetime(1970, 1, 1, tzinfo=UTC),
            rates=Rates(prompt=int(Decimal(text) * 10**6), completion=int(Decimal(text) * 10**6)),
            source="set",
            created_at=NOW,
        )
        for at, text in enumerate(PUBLISHED)
    )


def calls(count: int) -> Iterator[UsageEvent]:
    """Make calls of one token each, of all models in turn."""
    random, prices = Random(1), book()
    for at in range(count):
        event = make_event(
            new_event_id(random),
            started_at=NOW - timedelta(minutes=at % 40),
            model_requested=f"model-{at % len(PUBLISHED)}",
            prompt_tokens=at % 2,
            completion_tokens=1 - at % 2,
        )
        yield rate(event, prices)


def printed(database: Database, *by: str) -> dict[str, Any]:
    """Return a report as the command line and the API print it."""
    return as_json(reports.answer(database, Question(by=by, since=SINCE, until=UNTIL, tz=UTC)))


def usd(report: dict[str, Any]) -> Fraction:
    """Read the total that a report prints."""
    return Fraction(report["total"]["cost_usd"])


def test_calls_through_the_ledger(sqlite_database: Database, postgres_database: Database) -> None:
    """Calls that are appended as servers do it sum to the exact fraction, by rollup and by ledger."""
    count = 2_000
    exact = sum(Fraction(published(at)) / 10**6 for at in range(count))
    for database in (sqlite_database, postgres_database):
        events = list(calls(count))
        for at in range(0, count, 500):
            ledger.append(database, events[at : at + 500], NOW)

        assert usd(printed(database, "model")) == usd(printed(database, "user")) == exact
        assert ledger.verify(database) == []
    for by in (("model",), ("user", "model"), ("hour",)):
        assert printed(sqlite_database, *by) == printed(postgres_database, *by)


@pytest.mark.long
def test_calls_without_number(sqlite_database: Database, postgres_database: Database) -> None:
    """Many more calls, copied in SQL, sum to the exact fraction, and both databases print the same digits."""
    times = CALLS // len(PUBLISHED)
    exact = times * sum(Fraction(text) / 10**6 for text in PUBLISHED)
    for database in (sqlite_database, postgres_database):
        ledger.append(database, list(calls(len(PUBLISHED))), NOW)
        multiply(database, times)

        assert usd(printed(database, "model")) == usd(printed(database, "user")) == exact
        assert printed(database, "user")["total"]["requests"] == times * len(PUBLISHED)
        if times <= 2_000:
            assert ledger.verify(database) == []
    for by in (("model",), ("user", "model"), ("hour",)):
        assert printed(sqlite_database, *by) == printed(postgres_database, *by)


def multiply(database: Database, times: int) -> None:
    """Copy the calls that are there until there are so many of each, and their sums with them."""
    for start in range(1, times, CALLS_IN_A_STATEMENT_MAX // len(PUBLISHED)):
        end = min(times, start + CALLS_IN_A_STATEMENT_MAX // len(PUBLISHED))
        with database.write() as connection:
            connection.execute(_copies(database, start, end))
        database.checkpoint()
    with database.write() as connection:
        for table in ROLLUP.values():
            sums = {column.name: column * times for column in table.c if not column.primary_key}
            connection.execute(sa.update(table).values(sums))


def _copies(database: Database, start: int, end: int) -> sa.Insert:
    first = sa.select(sa.literal(start).label("number")).cte("numbers", recursive=True)
    numbers = first.union_all(sa.select(first.c.number + 1).where(first.c.number < end - 1))
    originals = (
        sa.select(
            sa.func.row_number().over(order_by=usage_events.c.model_requested).label("place"), usage_events
        )
        .where(usage_events.c.reason.is_(None))
        .subquery()
    )
    number = numbers.c.number * len(PUBLISHED) + originals.c.place
    copied: dict[str, sa.ColumnElement[Any]] = {name: originals.c[name] for name in usage_events.c.keys()}  # noqa: SIM118 (no mapping)
    copied |= {"event_id": _event_id(database, number), "reason": sa.literal("a copy")}
    query = sa.select(*copied.values()).select_from(originals.join(numbers, sa.true()))
    return sa.insert(usage_events).from_select(list(copied), query)


def _event_id(database: Database, number: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    if database.is_sqlite:
        return sa.func.printf("%032x", number)
    return sa.cast(sa.func.lpad(sa.func.to_hex(number), 32, "0"), sa.Uuid(as_uuid=False))
