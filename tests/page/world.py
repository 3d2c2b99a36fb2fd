"""A month of made-up history, to be looked at in a browser or asked for over HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from meter.app import actions, budgets
from meter.core.budget_drafts import Draft
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.core.keys import Key
from meter.core.prices import Price, PriceBook, Rates, rate
from meter.core.refusals import Refused, hour_of
from meter.store import ledger, prices, refusals
from meter.store.database import Database

HOSTILE = "<img src=x onerror=alert(1)>"
PEPPER = b"keys of this world open nothing"
DAYS = 60
CLAUDE, GEMINI, GPT, LOCAL = (
    "anthropic/claude-sonnet-4",
    "google/gemini-2.5-pro",
    "openai/gpt-4.1",
    "local/llama-3.3",
)
# Team, key, model, calls on a working day, prompt and completion tokens of one.
KEYS = (
    ("search", "query-rewriter", GPT, 9, 4_200, 210),
    ("search", "nightly-batch", CLAUDE, 6, 38_000, 2_600),
    ("search", "ranking-experiments", LOCAL, 3, 6_000, 900),
    ("support", "reply-drafts", CLAUDE, 11, 9_500, 1_400),
    ("support", "ticket-triage", GEMINI, 12, 3_100, 160),
    ("research", "notebooks", CLAUDE, 4, 61_000, 7_500),
    ("research", HOSTILE, GPT, 2, 5_000, 700),
    ("mobile", "assistant", GEMINI, 8, 7_000, 1_900),
)
_RATES = {CLAUDE: (3, 15), GEMINI: (1.25, 10), GPT: (2, 8)}


class World(NamedTuple):
    """What was made."""

    keys: dict[str, Key]
    events: list[UsageEvent]

    def newest(self, key: str) -> UsageEvent:
        """Return the newest request of a key that went well."""
        key_id = self.keys[key].id
        return next(e for e in reversed(self.events) if e.key_id == key_id and e.outcome is Outcome.OK)


def fill(database: Database, now: datetime) -> World:
    """Make teams, keys, prices, budgets, events and refusals; the same ones for the same `now`."""
    for team in dict.fromkeys(team for team, *_ in KEYS):
        actions.register_team(database, "test", team)
    keys = {name: actions.issue_key(database, PEPPER, "test", team, name, None)[0] for team, name, *_ in KEYS}
    long_ago = now - timedelta(days=1000)
    prices.add(database, [_price(model, long_ago) for model in _RATES])
    book = PriceBook(prices.load(database), {})
    events = sorted(_events(keys, now, book), key=lambda event: event.started_at)
    ledger.append(database, events, now)
    for draft in _drafts():
        budgets.put(database, "test", draft)
    hour = hour_of(now.astimezone(UTC))
    counts = {
        Refused(hour, keys["nightly-batch"].id, "rate_limit_exceeded"): 41,
        Refused(hour - timedelta(hours=5), keys["notebooks"].id, "insufficient_quota"): 7,
        Refused(hour, keys[HOSTILE].id, "model_not_allowed"): 3,
    }
    refusals.add(database, counts)
    return World(keys, events)


def _drafts() -> Iterator[Draft]:
    yield Draft(limit="150", period="month")
    yield Draft(limit="60", period="month", team="search", tz="Europe/Berlin", enforcement="strict")
    yield Draft(limit="90", period="month", team="research", enforcement="warn")
    yield Draft(limit="2000000", period="week", team="support", measure="tokens")
    yield Draft(limit="400", period="total", key="assistant", measure="requests", model="google/*")


def _price(model: str, since: datetime) -> Price:
    prompt, completion = (int(usd * 10**6) for usd in _RATES[model])
    rates = Rates(prompt=prompt, cached=prompt // 10, completion=completion)
    return Price(
        id=0,
        catalog="",
        model=model,
        effective_from=since,
        rates=rates,
        source="test",
        created_at=since,
        created_by="test",
        note="our contract",
    )


def _events(keys: dict[str, Key], now: datetime, book: PriceBook) -> Iterator[UsageEvent]:
    random = Random(7)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight - timedelta(days=before) for before in range(DAYS)):
        for _, name, model, calls, prompt, completion in KEYS:
            much = calls * (0.25 if day.weekday() > 4 else random.uniform(0.7, 1.4))
            for _ in range(round(much)):
                at = day + timedelta(seconds=random.randrange(6 * 3600, 21 * 3600))
                # Made in any case, so that what was before is the same at each hour of a day.
                event = _event(keys[name], model, at, random, (prompt, completion))
                if at < now:
                    yield rate(event, book)


def _event(key: Key, model: str, at: datetime, random: Random, sizes: tuple[int, int]) -> UsageEvent:
    prompt, completion = (max(1, int(size * random.lognormvariate(0, 0.5))) for size in sizes)
    luck = random.random()
    outcome = Outcome.UPSTREAM_ERROR if luck < 0.012 else Outcome.CLIENT_CLOSED if luck < 0.03 else Outcome.OK
    source = {Outcome.OK: UsageSource.REPORTED, Outcome.CLIENT_CLOSED: UsageSource.ESTIMATED}.get(
        outcome, UsageSource.NONE
    )
    used = source is not UsageSource.NONE
    return UsageEvent(
        event_id=uuid7(int(at.timestamp() * 1000), random.randbytes(10)),
        started_at=at,
        team_id=key.team_id,
        key_id=key.id,
        route="chat.completions",
        upstream="routerhub",
        model_requested=model,
        model_served=model if used else None,
        stream=luck > 0.4,
        outcome=outcome,
        usage_source=source,
        status=200 if used else 529,
        prompt_tokens=prompt if used else 0,
        cached_tokens=prompt * random.randrange(0, 70) // 100 if used else 0,
        completion_tokens=completion if used else 0,
        reasoning_tokens=completion // 3 if used and model in {CLAUDE, GEMINI} else 0,
        ttfb_ms=random.randrange(180, 900),
        duration_ms=random.randrange(900, 9000),
        end_user="u-1042" if luck > 0.9 else None,
        tags=("batch",) if "batch" in key.name else (),
    )
