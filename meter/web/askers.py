"""From a token to whoever asks with it.

Tokens are remembered by their whole digest for at most `ASKER_SECONDS_MAX`, which bounds how long a revoked
one goes on working; wrong ones too, in a bounded table. Those of the configuration, which are the owner's and
the scraper's, are known without the database.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from meter.core.access import Asker
from meter.core.clock import Clock
from meter.core.errors import InvalidAdminToken, MeteringUnavailable
from meter.core.guesses import Guesses
from meter.core.tokens import Token, well_formed

ASKER_SECONDS_MAX = 5.0
LOOK_UP_SECONDS_MAX = 2.0
TOKENS_REMEMBERED_MAX = 10_000

FindToken = Callable[[bytes], Awaitable[Token | None]]


class _Remembered(NamedTuple):
    token: Token | None
    at: float


class _Configured(NamedTuple):
    token: bytes
    digest: bytes
    asker: Asker


class Askers:
    """Knows askers by their tokens."""

    def __init__(
        self,
        *,
        configured: Mapping[str, Asker],
        find_token: FindToken,
        digest: Callable[[str], bytes],
        clock: Clock,
        guesses: Guesses | None = None,
    ) -> None:
        self._configured = [
            _Configured(token.encode(), digest(token), asker) for token, asker in configured.items()
        ]
        self._find_token = find_token
        self._digest = digest
        self._clock = clock
        self._guesses = Guesses(0) if guesses is None else guesses
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def find(self, token: str, host: str = "", forwarded: Sequence[str] = ()) -> Asker:
        """Return whose token this is; raises `InvalidAdminToken`, the same for whatever is wrong with it.

        A host that was wrong too often gets `TooManyFailures` for a token that is not known, unasked.
        With the database away it raises `MeteringUnavailable` for all but those of the configuration, because
        nobody can say that they are wrong.
        """
        given = token.encode("utf-8", "surrogateescape")
        for each in self._configured:
            if hmac.compare_digest(given, each.token):
                return each.asker
        digest = self._digest(token) if well_formed(token) else None
        if digest is None or not self._known(digest):
            self._guesses.check(host, forwarded, self._clock.monotonic())
        found = None if digest is None else await self._look_up(digest)
        if found is None or not found.valid_at(self._clock.now()):
            self._guesses.note(host, forwarded, self._clock.monotonic())
            raise InvalidAdminToken
        return found.asker

    async def find_by_digest(self, digest: bytes) -> Asker:
        """Return whose token has this digest, as `find` does for the token itself."""
        for each in self._configured:
            if hmac.compare_digest(digest, each.digest):
                return each.asker
        found = await self._look_up(digest)
        if found is None or not found.valid_at(self._clock.now()):
            raise InvalidAdminToken
        return found.asker

    def digest(self, token: str) -> bytes:
        """Return the digest by which a token is found, a configured one too."""
        return self._digest(token)

    def _known(self, digest: bytes) -> bool:
        remembered = self._remembered.get(digest)
        return remembered is not None and remembered.token is not None

    async def _look_up(self, digest: bytes) -> Token | None:
        now = self._clock.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and now - remembered.at < ASKER_SECONDS_MAX:
            return remembered.token
        try:
            token = await asyncio.wait_for(self._find_token(digest), LOOK_UP_SECONDS_MAX)
        except TimeoutError:
            raise MeteringUnavailable("Tokens cannot be looked up now; try again soon.") from None
        self._remembered[digest] = _Remembered(token, now)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > TOKENS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return token
