"""Concurrency: how many attempts of a key, and of a team, this process has under way."""

from meter.core.errors import RateLimitExceeded
from meter.core.limits import Defaults
from meter.proxy.admission import Candidate, Hold

RETRY_AFTER_SECONDS = 1


class Concurrency:
    """Admits so many attempts at once; a step of the admission."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._running: dict[str, int] = {}

    def running(self, owner_id: str) -> int:
        """Return how many attempts a key, or a team, has under way."""
        return self._running.get(owner_id, 0)

    def admit(self, candidate: Candidate) -> Hold:
        """Take a place of the key and of its team, or raise `RateLimitExceeded`."""
        grant, running = candidate.grant, self._running
        key_id, team_id = grant.key_id, grant.team_id
        limit = grant.limits.concurrency
        if limit is None:
            limit = self._defaults.key.concurrency
        if limit and running.get(key_id, 0) >= limit:
            raise _refusal("key", limit, running[key_id])
        limit = grant.team_limits.concurrency
        if limit is None:
            limit = self._defaults.team.concurrency
        if limit and running.get(team_id, 0) >= limit:
            raise _refusal("team", limit, running[team_id])
        running[key_id] = running.get(key_id, 0) + 1
        running[team_id] = running.get(team_id, 0) + 1
        return _Places(running, (key_id, team_id))


class _Places(Hold):
    __slots__ = ("_owners", "_running")

    def __init__(self, running: dict[str, int], owners: tuple[str, str]) -> None:
        self._running = running
        self._owners = owners

    def release(self) -> None:
        running = self._running
        for owner_id in self._owners:
            left = running[owner_id] - 1
            if left:
                running[owner_id] = left
            else:
                del running[owner_id]


def _refusal(owner: str, limit: int, running: int) -> RateLimitExceeded:
    return RateLimitExceeded(
        f"This {owner} may have {limit} requests under way at once, and has {running}. "
        "Try again when one has ended.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
