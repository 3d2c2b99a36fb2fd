"""What admission costs: CPU a request with three levels of budgets, and with two rate limits beside them.

python -m tests.bench.admission [--requests N]

It is the common case: what a request needs is held in memory, so that nobody asks the database. The CPU is
that of the thread, from the step's call to what the intent says of it, and back when the request has ended.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from meter.allowances.sizes import Sizes
from meter.allowances.treasury import Bank, Treasury
from meter.app.budgeting import Budgeting
from meter.app.limiting import Limiting, prompt_tokens
from meter.core.allowances import Answer, Ask, Beat, Share, Wish
from meter.core.attempts import Attempt
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind
from meter.core.clock import Clock
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.core.prices import BEGINNING, Price, PriceBook, Rates
from meter.core.request import read_request
from meter.proxy.admission import Candidate, Hold, Step
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates as RateLimits

REQUESTS = 20_000
ROUNDS = 5
BUDGETS_US_MAX = 10.0
ALL_US_MAX = 30.0
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
CLOCK = Clock(now=lambda: NOW, monotonic=time.monotonic)
UNLIMITED = Limits(rpm=0, tpm=0, concurrency=0)
LIMITED = Limits(rpm=10**8, tpm=10**12)
BODY = (
    b'{"model":"openai/gpt-4.1","messages":[{"role":"system","content":"You are brief."},'
    b'{"role":"user","content":"What is a proxy?"}],"max_tokens":300}'
)
TIERS = ("", "batch", "flex", "priority")


class Cost(NamedTuple):
    """What a kind of admission takes."""

    what: str
    us: float
    us_max: float


async def _reserve(wishes: Sequence[Wish], asks: Sequence[Ask]) -> tuple[Answer, int]:
    shares: list[Share | None] = [
        Share(wish.budget_id, wish.span.start, at, 10**17, 10**18) for at, wish in enumerate(wishes, 1)
    ]
    return Answer([None] * len(asks), shares), 1


async def _give_back(_amounts: Mapping[int, int]) -> tuple[dict[int, Share], int]:
    return {}, 1


async def _beat(_holds: bool) -> tuple[Beat, int]:
    return Beat(NOW, [], {}), 1


def budgets(enforcement: Enforcement) -> list[Budget]:
    """Make a budget of the organisation, one of the team and one of the key."""
    owners = ((OwnerKind.ORG, ""), (OwnerKind.TEAM, "team"), (OwnerKind.KEY, "key"))
    return [
        Budget(
            id=kind,
            owner_kind=kind,
            owner_id=owner_id,
            measure=Measure.COST,
            period="month",
            limit=10**18,
            enforcement=enforcement,
        )
        for kind, owner_id in owners
    ]


def budgeting(enforcement: Enforcement) -> Step:
    """Make the step that budgets are, with everything held in memory."""
    book = PriceBook(
        Price(
            id=number,
            catalog="",
            model="openai/gpt-4.1",
            service_tier=tier,
            effective_from=BEGINNING,
            rates=Rates(prompt=2 * 10**6, completion=8 * 10**6),
            source="set",
            created_at=BEGINNING,
        )
        for number, tier in enumerate(TIERS, 1)
    )
    treasury = Treasury(Bank(_reserve, _give_back, _beat), CLOCK)
    treasury.start_from(budgets(enforcement))
    return Budgeting(treasury, Sizes(), lambda: book, overrun="finish")


def candidate() -> Candidate:
    """Make a request that asks for admission."""
    attempt = Attempt(
        event_id="019ab1c2-7d1e-7c55-9f0a-3b6f0c1d2e3f",
        started_at=NOW,
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model="openai/gpt-4.1",
        stream=False,
        prompt_estimate=40,
    )
    grant = Grant("key", "key", "team", "team", limits=LIMITED, team_limits=UNLIMITED)
    return Candidate(attempt, grant, read_request(BODY))


async def passed(step: Step, asks: Candidate) -> Hold | None:
    """Pass a step, whether or not it has to wait."""
    found = step(asks)
    return found if found is None or isinstance(found, Hold) else await found


async def _admit(steps: Sequence[Step], asks: Candidate, count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        for step in steps:
            hold = await passed(step, asks)
            if hold is not None:
                hold.noted(asks.attempt)
                hold.release()
    return time.thread_time() - began


async def _measure(steps: Sequence[Step], count: int) -> float:
    asks = candidate()
    # The first ones ask, and are remembered.
    await _admit(steps, asks, 100)
    await asyncio.sleep(0.01)
    found = []
    for _ in range(ROUNDS):
        gc.collect()
        found.append(await _admit(steps, asks, count))
    return 1e6 * statistics.median(found) / count


async def costs(count: int) -> list[Cost]:
    """Measure admission by budgets alone, and by budgets and rates."""
    limiting = Limiting(
        defaults=Defaults(key=UNLIMITED, team=UNLIMITED),
        rates=RateLimits(clock=CLOCK, shared=None),
        concurrency=Concurrency(Defaults(key=UNLIMITED, team=UNLIMITED)),
        likely_tokens=prompt_tokens,
    )
    found = []
    for enforcement in (Enforcement.STANDARD, Enforcement.STRICT):
        step = budgeting(enforcement)
        us = await _measure([step], count)
        found.append(Cost(f"three {enforcement} budgets", us, BUDGETS_US_MAX))
        both = await _measure([limiting.count, step], count)
        found.append(Cost(f"three {enforcement} budgets and two rates", both, ALL_US_MAX))
    return found


def main(measure: Callable[[int], Awaitable[list[Cost]]] = costs) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.admission")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    count = parser.parse_args().requests

    async def run() -> list[Cost]:
        return await measure(count)

    found = asyncio.run(run())
    for cost in found:
        sys.stdout.write(f"{cost.what:40}  {cost.us:6.1f} us  (at most {cost.us_max:.0f})\n")
    return 1 if any(cost.us > cost.us_max for cost in found) else 0


if __name__ == "__main__":
    sys.exit(main())
