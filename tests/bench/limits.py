"""What limits cost a request, in CPU: `make bench-limits`."""

import asyncio
import time
from datetime import UTC, datetime

from meter.app.limiting import Limiting, prompt_tokens
from meter.core.attempts import Attempt, Ending, conclude
from meter.core.clock import Clock
from meter.core.events import Outcome
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.core.request import read_request
from meter.proxy.admission import Admission, Candidate, allow_models
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates

REQUESTS = 50_000
NONE = Limits()
MODELS = Limits(models=("openai/*", "anthropic/claude-sonnet-4"), concurrency=10**6)
RATES = Limits(rpm=10**9, tpm=10**12)
CASES = {
    "nothing": (NONE, NONE),
    "models and concurrency": (MODELS, MODELS),
    "two rates": (RATES, NONE),
    "four rates": (RATES, RATES),
}


def candidate(key_id: str, limits: Limits, team_limits: Limits) -> Candidate:
    """Ask for a model that is on the list."""
    attempt = Attempt(
        event_id="0192a000-0000-7000-8000-000000000000",
        started_at=datetime(2026, 11, 25, tzinfo=UTC),
        team_id="t",
        key_id=key_id,
        route="chat.completions",
        upstream="default",
        model="anthropic/claude-sonnet-4",
        stream=False,
        prompt_estimate=700,
    )
    grant = Grant(
        key_id=key_id, key_name="k", team_id="t", team_name="t", limits=limits, team_limits=team_limits
    )
    facts = read_request(b'{"model":"anthropic/claude-sonnet-4"}')
    return Candidate(attempt, grant, facts)


async def measure(keys: int, limits: Limits, team_limits: Limits) -> float:
    """Return the microseconds of CPU that a request's limits take, from admission to settling."""
    clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    unset = Defaults(NONE, NONE)
    limiting = Limiting(
        defaults=unset,
        rates=Rates(clock=clock, shared=None),
        concurrency=Concurrency(unset),
        likely_tokens=prompt_tokens,
    )
    admission = Admission((allow_models, limiting.concurrency.admit, limiting.count))
    asking = [candidate(str(number), limits, team_limits) for number in range(keys)]
    event = conclude(asking[0].attempt, Ending(outcome=Outcome.UNREACHABLE), None)
    began = time.process_time()
    for number in range(REQUESTS):
        admitted = await admission.admit(asking[number % keys])
        admitted.settled(event)
        admitted.release()
    return (time.process_time() - began) / REQUESTS * 1e6


def main() -> None:
    """Print a line a case."""
    print(f"{'limits':<24}{'1 key':>12}{'10,000 keys':>14}")  # noqa: T201 (printing is the point)
    for name, (limits, team_limits) in CASES.items():
        one, many = (asyncio.run(measure(keys, limits, team_limits)) for keys in (1, 10_000))
        print(f"{name:<24}{one:>9.1f} us{many:>11.1f} us")  # noqa: T201 (printing is the point)


if __name__ == "__main__":
    main()
