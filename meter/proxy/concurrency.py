"""Concurrency: how many attempts of a key, and of a team, this process has under way."""

from meter.core.errors import RateLimitExceeded
from meter.core.keys import Grant
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

    async def admit(self, candidate: Candidate) -> Hold:
        """Take a place of the key and of its team, or raise `RateLimitExceeded`."""
        grant = candidate.grant
        for owner, owner_id, limit in self._limits(grant):
            running = self.running(owner_id)
            if limit and running >= limit:
                raise RateLimitExceeded(
                    f"This {owner} may have {limit} requests under way at once, and has {running}. "
                    "Try again when one has ended.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
        owners = (grant.key_id, grant.team_id)
        for owner_id in owners:
            self._running[owner_id] = self.running(owner_id) + 1
        return _Places(self._running, owners)

    def _limits(self, grant: Grant) -> tuple[tuple[str, str, int | None], ...]:
        limits, team_limits = self._defaults.fill(grant.limits, grant.team_limits)
        return (
            ("key", grant.key_id, limits.concurrency),
            ("team", grant.team_id, team_limits.concurrency),
        )


class _Places(Hold):
    def __init__(self, running: dict[str, int], owners: tuple[str, str]) -> None:
        self._running = running
        self._owners = owners

    def release(self) -> None:
        for owner_id in self._owners:
            self._running[owner_id] -= 1
            if not self._running[owner_id]:
                del self._running[owner_id]
