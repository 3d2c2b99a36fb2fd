"""Rates as a step of admission: those of the key and the team as they are now."""

import asyncio

import msgspec
import pytest

from meter.app.limiting import KEYS_REMEMBERED_MAX, Limiting, prompt_tokens
from meter.core.errors import RateLimitExceeded
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.proxy.admission import Admission, Admitted
from meter.proxy.concurrency import Concurrency
from meter.rates import Rates
from tests.bench.admission import CLOCK
from tests.proxy.test_admission import EVENT, GRANT, candidate

UNSET = Defaults(Limits(), Limits())


def limiting(unset: Defaults = UNSET) -> Limiting:
    """Make what limits, in memory."""
    return Limiting(
        defaults=unset,
        rates=Rates(clock=CLOCK, shared=None),
        concurrency=Concurrency(unset),
        likely_tokens=prompt_tokens,
    )


def admit(made: Limiting, grant: Grant) -> Admitted:
    """Ask for a request's admission."""
    return asyncio.run(Admission((made.count,)).admit(candidate(grant)))


def test_without_limits_nothing_is_counted() -> None:
    """Nobody who is not limited takes anything; 0 is no limit, whatever the settings say."""
    assert limiting().count(candidate(GRANT)) is None

    none = Limits(rpm=0, tpm=0)
    free = msgspec.structs.replace(GRANT, limits=none, team_limits=none)
    assert limiting(Defaults(Limits(rpm=1), Limits(tpm=1))).count(candidate(free)) is None


def test_a_change_of_limits_counts_from_the_next_request() -> None:
    """A key that was changed goes by its new limits, and what it has used before counts."""
    made = limiting(Defaults(Limits(rpm=2), Limits()))
    admit(made, GRANT).settled(EVENT)
    admit(made, GRANT).settled(EVENT)
    with pytest.raises(RateLimitExceeded, match="2 requests a minute; 2 are used"):
        admit(made, GRANT)

    more = msgspec.structs.replace(GRANT, limits=Limits(rpm=3))
    admit(made, more).settled(EVENT)
    with pytest.raises(RateLimitExceeded, match="3 requests a minute; 3 are used"):
        admit(made, more)
    with pytest.raises(RateLimitExceeded, match="2 requests a minute; 3 are used"):
        admit(made, GRANT)


def test_an_attempt_that_never_began_counts_nothing() -> None:
    """What is given back without having been settled leaves the room to others."""
    made = limiting(Defaults(Limits(rpm=1, tpm=7), Limits(rpm=1)))

    for _ in range(3):
        admit(made, GRANT).release()
    admit(made, GRANT).settled(EVENT)

    with pytest.raises(RateLimitExceeded, match="The limit of this key is 1 requests"):
        admit(made, GRANT)


def test_what_is_remembered_of_keys_is_bounded() -> None:
    """However many keys there are, so many are remembered."""
    made = limiting()
    for number in range(KEYS_REMEMBERED_MAX + 5):
        made.count(candidate(msgspec.structs.replace(GRANT, key_id=str(number))))

    assert made.keys_remembered == 5
