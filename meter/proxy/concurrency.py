"""Concurrency: how many attempts of a key, and of a team, this process has under way."""

from meter.core.errors import RateLimitExceeded
from meter.core.limits import Defaults
from meter.proxy.admission import Candidate, Hold

RETRY_AFTER_SECONDS = 1

_OWNERS = ("key", "team")


class Concurrency:
    """Admits so many attempts at once; a step of the admission."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = (defaults.key.concurrency, defaults.team.concurrency)
        self._running: dict[str, int] = {}

    def running(self, owner_id: str) -> int:
        """Return how many attempts a key, or a team, has under way."""
        return self._running.get(owner_id, 0)

    def admit(self, candidate: Candidate) -> Hold:
        """Take a place of the key and of its team, or raise `RateLimitExceeded`."""
        grant, running = candidate.grant, self._running
        owners = (grant.key_id, grant.team_id)
        limits = (grant.limits.concurrency, grant.team_limits.concurrency)
        for owner_id, own, default, owner in zip(owners, limits, self._defaults, _OWNERS, strict=True):
            limit = default if own is None else own
            if limit and running.get(owner_id, 0) >= limit:
                raise _refusal(owner, limit, running[owner_id])
        for owner_id in owners:
            running[owner_id] = running.get(owner_id, 0) + 1
        return _Places(running, owners)


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
