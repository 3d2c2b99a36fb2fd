"""What `meter demo` shows: teams, keys, budgets and a month of history, and traffic while it runs."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import NamedTuple

import httpx

from meter.app import budgets, made_up
from meter.app.actions import change_key, issue_key, register_team
from meter.app.made_up import HABITS, HOUSE_MODEL, Habit, Holder
from meter.app.rating import Rater
from meter.app.repricing import reprice
from meter.core.audit import Signature
from meter.core.budget_drafts import Draft
from meter.core.corrections import Cause
from meter.core.events import UsageEvent
from meter.core.money import Picodollars, format_usd
from meter.core.period import period_of
from meter.core.prices import Price, Rates
from meter.core.refusals import Refused
from meter.core.repricing import Selection
from meter.settings import Settings
from meter.store import ledger, months, prices, refusals
from meter.store.database import Database

ACTOR = "meter demo"
EVENTS_AT_ONCE = 2_000
# Of what a month costs: budgets that will hold, and one that will not, and only warns.
ROOM, TOO_LITTLE = 1.6, 0.8
PAUSE_SECONDS = 1.5
ANSWER_SECONDS_MAX = 30.0
# Asks for a model that its key may not use.
_STRAY_SHARE = 0.05
_WORDS_MAX = 400

Secrets = Mapping[str, str]


class Premises(NamedTuple):
    """What a demonstration is set up in."""

    settings: Settings
    database: Database
    pepper: bytes


def furnish(premises: Premises, seed: int, now: datetime) -> Secrets:
    """Make everything up in an empty database; returns the secrets of the keys, by their names."""
    database = premises.database
    random = Random(seed)  # noqa: S311 (what is made up is no secret)
    holders, secrets = _people(premises)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight - timedelta(days=made_up.DAYS)
    rater = Rater(database, premises.settings)
    rater.refresh()
    events = [rater.rate(event) for event in made_up.history(holders, since, now, random)]
    _append(database, events, now)
    counted = made_up.refusals(since, midnight, random)
    refusals.add(
        database,
        {Refused(each.hour, holders[each.key].key_id, each.reason): each.times for each in counted},
    )
    _change_the_past(premises, rater, since, now)
    _limit(database, holders, events)
    database.checkpoint()
    return secrets


async def traffic(url: str, secrets: Secrets, seed: int, stop: asyncio.Event) -> None:
    """Ask as the keys' holders do, one request after the other, until told to stop."""
    random = Random(seed)  # noqa: S311 (what is made up is no secret)
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS_MAX, trust_env=False) as client:
        while not stop.is_set():
            habit = random.choices(HABITS, [each.per_day for each in HABITS])[0]
            # What is refused or cut is there to be seen on the page.
            with suppress(httpx.HTTPError):
                await _ask(client, habit, secrets[habit.key], random)
            with suppress(TimeoutError):
                async with asyncio.timeout(random.expovariate(1 / PAUSE_SECONDS)):
                    await stop.wait()


async def _ask(client: httpx.AsyncClient, habit: Habit, secret: str, random: Random) -> None:
    model = made_up.EXPERIMENT if random.random() < _STRAY_SHARE else random.choice(habit.models)
    words = "tell me more about it " * random.randint(1, _WORDS_MAX // 5)
    body = {"model": model, "messages": [{"role": "user", "content": words}], "stream": habit.stream}
    headers = {"authorization": f"Bearer {secret}", "x-meter-tags": ",".join(("live", *habit.tags))}
    if habit.users:
        body["user"] = random.choice(habit.users)
    await client.post("/chat/completions", json=body, headers=headers)


def _people(premises: Premises) -> tuple[dict[str, Holder], dict[str, str]]:
    database, holders, secrets = premises.database, {}, {}
    teams = {name: register_team(database, ACTOR, name) for name in dict.fromkeys(map(_team, HABITS))}
    for habit in HABITS:
        team_id = teams[habit.team].id
        key, secrets[habit.key] = issue_key(database, premises.pepper, ACTOR, team_id, habit.key, None)
        holders[habit.key] = Holder(team_id, key.id)
        allowed = {"models": tuple(dict.fromkeys(habit.models))}
        change_key(database, ACTOR, key.id, allowed | ({"rpm": 60} if "batch" in habit.tags else {}))
    return holders, secrets


def _team(habit: Habit) -> str:
    return habit.team


def _append(database: Database, events: list[UsageEvent], now: datetime) -> None:
    left = iter(events)
    while some := list(islice(left, EVENTS_AT_ONCE)):
        ledger.append(database, some, now)


def _change_the_past(premises: Premises, rater: Rater, since: datetime, now: datetime) -> None:
    """Close the month before, and give a price to what had none: that makes corrections of both months."""
    database = premises.database
    month = period_of(since, "month", UTC)
    if month.end <= now:
        months.close(database, month, Signature(ACTOR, now))
    price = Price(
        id=0,
        catalog="",
        model=HOUSE_MODEL,
        effective_from=since,
        rates=Rates(prompt=200_000, completion=800_000),
        source=ACTOR,
        created_at=now,
    )
    prices.add(database, [price], Signature(ACTOR, now))
    rater.refresh()
    half = Selection(since=since, until=since + (now - since) / 2, tz=UTC, model=HOUSE_MODEL)
    cause = Cause(ACTOR, "the house model has a price now")
    reprice(database, rater.book, half, cause, lambda: now, apply=True)


def _limit(database: Database, holders: Mapping[str, Holder], events: list[UsageEvent]) -> None:
    """Give budgets to the organisation, to a team and to keys, by what they spend."""
    spent: dict[str, int] = {}
    for event in events:
        for owner in ("", event.team_id, event.key_id):
            spent[owner] = spent.get(owner, 0) + (event.cost or 0)

    def usd(owner: str, part: float) -> str:
        return format_usd(Picodollars(max(1, round(spent.get(owner, 0) * part / 10**12)) * 10**12))

    support, search = holders["chat-assistant"].team_id, holders["nightly-batch"].team_id
    evals = holders["evals"].key_id
    drafts = (
        Draft(limit=usd("", ROOM), period="month"),
        Draft(limit=usd(support, TOO_LITTLE), period="month", team=support, enforcement="warn"),
        Draft(limit=usd(search, ROOM), period="month", team=search),
        Draft(limit=usd(evals, 0.2), period="day", key=evals, enforcement="strict"),
        Draft(limit="4000", period="day", measure="requests"),
    )
    for draft in drafts:
        budgets.put(database, ACTOR, draft)
