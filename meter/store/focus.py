"""What a FOCUS export is made of: the ledger by day, added up as far as one unit price goes."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.focus import Charge, check
from meter.core.prices import Price
from meter.core.reports import Question
from meter.core.spans import floor
from meter.core.tariffs import KINDS
from meter.store import retention
from meter.store.database import Database
from meter.store.prices import read_price
from meter.store.reports import filters
from meter.store.rollup import PART
from meter.store.tables import api_keys, prices, teams, usage_events

ROWS_PER_FETCH = 1_000
_DAY = timedelta(days=1)
_TIERLESS = ""


class Day(NamedTuple):
    """The charges that count on one day."""

    number: int
    """From 1 on."""
    days: int
    charges: Iterator[Charge]
    """To be read before the next day is asked for."""


class _Names(NamedTuple):
    teams: Mapping[str, str]
    keys: Mapping[str, str]
    prices: Mapping[int, Price]
    thresholds: tuple[int, ...]
    """Of all long contexts in the book, in ascending order."""


def days(database: Database, question: Question) -> Iterator[Day]:
    """Yield the days of a question, all of one state of the database, whose connection is held meanwhile."""
    check(question)
    first, count = floor(question.since, "day"), 0
    while first + count * _DAY < question.until:
        count += 1
    with database.read_long() as connection:
        retention.require(connection, "A FOCUS export reads", question.since)
        names = _names(connection)
        for number in range(count):
            yield Day(number + 1, count, _charges(connection, question, names, first + number * _DAY))


def _names(connection: sa.Connection) -> _Names:
    book = [read_price(row) for row in connection.execute(sa.select(prices)).mappings()]
    return _Names(
        {row.id: row.name for row in connection.execute(sa.select(teams.c.id, teams.c.name))},
        {row.id: row.name for row in connection.execute(sa.select(api_keys.c.id, api_keys.c.name))},
        {price.id: price for price in book},
        tuple(sorted({long.above_tokens for price in book for long in price.long_context})),
    )


def _charges(connection: sa.Connection, question: Question, names: _Names, day: datetime) -> Iterator[Charge]:
    event = usage_events.c
    until = min(day + _DAY, question.until)
    in_time = (event.started_at >= day) & (event.started_at < until) & event.counted_at.is_(None)
    late = (event.counted_at >= day) & (event.counted_at < until)
    for where, is_late in ((in_time, False), (late, True)):
        started = _date(connection.dialect) if is_late else sa.literal(day.date().isoformat())
        query = _query(connection, question, names, where, started)
        rows = connection.execute(query, execution_options={"yield_per": ROWS_PER_FETCH}).mappings()
        for row in rows:
            yield _charge(row, names, day, late=is_late)


def _query(
    connection: sa.Connection,
    question: Question,
    names: _Names,
    where: sa.ColumnElement[bool],
    started: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    event = usage_events.c
    groups = {
        "day": started,
        "team_id": event.team_id,
        "key_id": event.key_id,
        "upstream": event.upstream,
        "model": sa.func.coalesce(event.model_served, event.model_requested),
        "service_tier": sa.func.coalesce(event.service_tier, _TIERLESS),
        "price_id": event.price_id,
        "above_tokens": _above(names.thresholds),
        "correction": event.corrects_id.is_not(None),
        "priced": event.cost.is_not(None),
    }
    values = {name: value.label(name) for name, value in (groups | _values()).items()}
    lines = sa.select(*values.values()).where(where).subquery()
    columns = [lines.c[name] for name in groups]
    sums = [
        column
        for name in _values()
        for column in (
            sa.func.sum(lines.c[name] // PART).label(f"{name}_whole"),
            sa.func.sum(lines.c[name] % PART).label(f"{name}_rest"),
        )
    ]
    query = sa.select(*columns, *sums).where(filters(connection, lines, question))
    # In an order of its own, so that the same question gives the same file.
    return query.group_by(*columns).order_by(*columns)


def _values() -> dict[str, sa.ColumnElement[Any]]:
    """Say in SQL what `meter.core.prices.quantities` says of one event, and what is counted beside it."""
    event = usage_events.c
    overlap = event.cached_tokens + event.cache_write_tokens > event.prompt_tokens
    written = sa.case((overlap, 0), else_=event.cache_write_tokens)
    uncached = event.prompt_tokens - event.cached_tokens - written
    audio = sa.case((event.input_audio_tokens < uncached, event.input_audio_tokens), else_=uncached)
    attempt = event.corrects_id.is_(None)
    return {
        "prompt": uncached - audio,
        "cached": event.cached_tokens,
        "cache_write": event.cache_write_tokens - event.cache_write_1h_tokens,
        "cache_write_1h": event.cache_write_1h_tokens,
        "input_audio": audio,
        "completion": event.completion_tokens - event.output_audio_tokens,
        "output_audio": event.output_audio_tokens,
        "cost": sa.func.coalesce(event.cost, 0),
        "upstream_cost": sa.case((attempt, sa.func.coalesce(event.upstream_cost, 0)), else_=0),
        "requests": sa.case((attempt, 1), else_=0),
        "unpriced_requests": sa.case(
            (attempt & event.cost.is_(None), 1), (event.priced_tokens.is_not(None), -1), else_=0
        ),
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "reasoning_tokens": event.reasoning_tokens,
    }


def _above(thresholds: tuple[int, ...]) -> sa.ColumnElement[int]:
    """Say above which of all thresholds there are a prompt is; its price may know only some of them."""
    prompt = usage_events.c.prompt_tokens
    above = [(prompt > threshold, sa.literal(threshold)) for threshold in reversed(thresholds)]
    return sa.case(*above, else_=sa.literal(0)) if above else sa.literal(0)


def _date(dialect: sa.Dialect) -> sa.ColumnElement[Any]:
    started = sa.type_coerce(usage_events.c.started_at, sa.DateTime(timezone=True))
    if dialect.name == "sqlite":
        return sa.func.date(started, type_=sa.String())
    return sa.func.to_char(sa.func.timezone("UTC", started), "YYYY-MM-DD", type_=sa.String())


def _charge(row: sa.RowMapping, names: _Names, day: datetime, *, late: bool) -> Charge:
    sums = {name: int(row[f"{name}_whole"]) * PART + int(row[f"{name}_rest"]) for name in _values()}
    price = names.prices.get(row["price_id"])
    return Charge(
        day=date.fromisoformat(row["day"]),
        counted=day,
        late=late,
        team_id=row["team_id"],
        team=names.teams.get(row["team_id"], row["team_id"]),
        key_id=row["key_id"],
        key=names.keys.get(row["key_id"], row["key_id"]),
        upstream=row["upstream"],
        model=row["model"],
        service_tier=row["service_tier"],
        price=price,
        above_tokens=_known_above(price, row["above_tokens"]),
        correction=bool(row["correction"]),
        priced=bool(row["priced"]),
        cost=sums["cost"],
        upstream_cost=sums["upstream_cost"],
        requests=sums["requests"],
        prompt_tokens=sums["prompt_tokens"],
        completion_tokens=sums["completion_tokens"],
        cached_tokens=sums["cached"],
        reasoning_tokens=sums["reasoning_tokens"],
        unpriced_requests=sums["unpriced_requests"],
        quantities={kind: sums[kind] for kind in KINDS},
    )


def _known_above(price: Price | None, above_tokens: int) -> int:
    known = [] if price is None else [long.above_tokens for long in price.long_context]
    return max((each for each in known if each <= above_tokens), default=0)
