"""The gate: from the credential of a request to what its holder may do.

Grants are remembered by the whole digest of a key for at most `GRANT_SECONDS_MAX`, which bounds how long a
revoked key goes on working. A grant about to get too old is looked up again while requests still use it, so
that no request waits for the database in the common case.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl

from meter.core.clock import Clock
from meter.core.errors import InvalidKey, InvalidRequest, MeteringUnavailable
from meter.core.guesses import Guesses
from meter.core.keys import Grant, Snapshot, well_formed
from meter.proxy.headers import Pairs

GRANT_SECONDS_MAX = 5.0
REFRESH_AFTER_SECONDS = 2.0
# A database that hangs must not make requests hang.
LOOK_UP_SECONDS_MAX = 0.3
# Wrong keys are remembered too; the bound keeps a flood of them from filling the memory.
GRANTS_REMEMBERED_MAX = 50_000

_KEY_HEADERS = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_KEY_PARAMETERS = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token"})

log = logging.getLogger(__name__)

FindGrant = Callable[[bytes], Awaitable[Grant | None]]


class _Remembered(NamedTuple):
    grant: Grant | None
    at: float


class Gate:
    """Admits requests by their key."""

    def __init__(
        self,
        *,
        find_grant: FindGrant,
        digest: Callable[[str], bytes],
        clock: Clock,
        stale_seconds_max: float = 0.0,
        guesses: Guesses | None = None,
    ) -> None:
        self._find_grant = find_grant
        self._digest = digest
        self._clock = clock
        self._stale_seconds_max = stale_seconds_max
        self._guesses = Guesses(0) if guesses is None else guesses
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._refreshing: dict[bytes, asyncio.Task[Grant | None]] = {}
        self._snapshot = Snapshot(None, {})
        self._away = False

    @property
    def database_away(self) -> bool:
        """Whether the last look-up got no answer."""
        return self._away

    @property
    def has_snapshot(self) -> bool:
        """Whether all keys were known at some time, so that the known ones can be told from others."""
        return self._snapshot.taken_at is not None

    async def admit(self, headers: Pairs, query: bytes, client: tuple[str, int] | None = None) -> Grant:
        """Return the grant of the request's key; raises `InvalidKey`, the same for whatever is wrong.

        Whoever was wrong too often gets `TooManyFailures` for a key that is not known, without a look-up.

        With the database away, keys known from before go on for a while; for others it raises
        `MeteringUnavailable`, because nobody can say that they are wrong.
        """
        digest = self.digest_of(headers, query)
        if digest is None or not self._known(digest):
            self._guesses.check(*_origin(headers, client), self._clock.monotonic())
        grant = None if digest is None else await self._grant(digest)
        if grant is None or not grant.valid_at(self._clock.now()):
            self._guesses.note(*_origin(headers, client), self._clock.monotonic())
            raise InvalidKey
        return grant

    def digest_of(self, headers: Pairs, query: bytes = b"") -> bytes | None:
        """Return the digest of a request's key, or `None` where it is none; raises `InvalidRequest`."""
        key = credential(headers, query)
        return self._digest(key) if well_formed(key) else None

    def at_hand(self, digest: bytes) -> Grant | None:
        """Return the grant of a valid key that is remembered; `None` is for `admit` to say why."""
        lately = self._lately(digest)
        grant = None if lately is None else lately.grant
        return grant if grant is not None and grant.valid_at(self._clock.now()) else None

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """Take in all grants there were at some time, for when the database is away."""
        self._snapshot = snapshot

    async def aclose(self) -> None:
        """Wait for the look-ups under way."""
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    def _known(self, digest: bytes) -> bool:
        remembered = self._remembered.get(digest)
        return (remembered is not None and remembered.grant is not None) or digest in self._snapshot.grants

    def _lately(self, digest: bytes) -> _Remembered | None:
        """Return what a look-up has found lately, and look again before that is too long ago."""
        remembered = self._remembered.get(digest)
        age = float("inf") if remembered is None else self._clock.monotonic() - remembered.at
        if age >= GRANT_SECONDS_MAX:
            return None
        if age >= REFRESH_AFTER_SECONDS:
            self._look_up(digest)
        return remembered

    async def _grant(self, digest: bytes) -> Grant | None:
        lately = self._lately(digest)
        if lately is not None:
            return lately.grant
        remembered = self._remembered.get(digest)
        age = float("inf") if remembered is None else self._clock.monotonic() - remembered.at
        task = self._look_up(digest)
        fallback = self._from_before(digest, remembered, age)
        if self._away and fallback is not None:
            # Nobody waits for a database that did not answer the last time.
            return fallback
        try:
            return await asyncio.wait_for(asyncio.shield(task), LOOK_UP_SECONDS_MAX)
        except (MeteringUnavailable, TimeoutError):
            self._away = True
            if fallback is None:
                raise MeteringUnavailable("Keys cannot be looked up now; try again soon.") from None
            return fallback

    def _from_before(self, digest: bytes, remembered: _Remembered | None, age: float) -> Grant | None:
        """Return what was known of a key before the database went away, unless that is too long ago."""
        if remembered is not None and age < self._stale_seconds_max:
            return remembered.grant
        taken_at = self._snapshot.taken_at
        if taken_at is None or (self._clock.now() - taken_at).total_seconds() > self._stale_seconds_max:
            return None
        return self._snapshot.grants.get(digest)

    def _look_up(self, digest: bytes) -> asyncio.Task[Grant | None]:
        # Many requests may ask for one key at once; they share one look-up.
        task = self._refreshing.get(digest)
        if task is None:
            task = asyncio.create_task(self._refresh(digest))
            self._refreshing[digest] = task
            task.add_done_callback(lambda done: self._looked_up(digest, done))
        return task

    def _looked_up(self, digest: bytes, task: asyncio.Task[Grant | None]) -> None:
        self._refreshing.pop(digest, None)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.warning("a key could not be looked up: %s", fault)
        self._away = fault is not None

    async def _refresh(self, digest: bytes) -> Grant | None:
        at = self._clock.monotonic()
        grant = await self._find_grant(digest)
        self._remembered[digest] = _Remembered(grant, at)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > GRANTS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return grant


def _origin(headers: Pairs, client: tuple[str, int] | None) -> tuple[str, list[str]]:
    forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return "" if client is None else client[0], forwarded


def credential(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str:
    """Return the one bearer token of a request, or an empty string where there is none.

    A second, different credential in another place would let meter and the upstream see different callers,
    and a key in a URL ends up in logs: both are refused.
    """
    if query and any(name.lower() in _KEY_PARAMETERS for name, _ in parse_qsl(query.decode("latin-1"))):
        raise InvalidRequest("Send the key as 'Authorization: Bearer ...', never in the URL.")
    bearers, others = set[bytes](), set[bytes]()
    for name, value in headers:
        if name == b"authorization":
            bearers.add(value.strip())
        elif name in _KEY_HEADERS:
            others.add(b"Bearer " + value.strip())
    if len(bearers) > 1 or (bearers and others - bearers):
        raise InvalidRequest("Send one credential, as 'Authorization: Bearer ...'.")
    scheme, _, token = next(iter(bearers), b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
