"""The gate: from the credential of a request to what its holder may do.

Grants are remembered by the whole digest of a key for at most `GRANT_SECONDS_MAX`, which bounds how long a
revoked key goes on working. A grant about to get too old is looked up again while requests still use it, so
that no request waits for the database in the common case.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl

from meter.core.clock import Clock
from meter.core.errors import InvalidKey, InvalidRequest
from meter.core.keys import Grant, well_formed

GRANT_SECONDS_MAX = 5.0
REFRESH_AFTER_SECONDS = 2.0
# Wrong keys are remembered too; the bound keeps a flood of them from filling the memory.
GRANTS_REMEMBERED_MAX = 50_000

_KEY_HEADERS = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_KEY_PARAMETERS = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token"})

FindGrant = Callable[[bytes], Awaitable[Grant | None]]


class _Remembered(NamedTuple):
    grant: Grant | None
    at: float


class Gate:
    """Admits requests by their key."""

    def __init__(self, *, find_grant: FindGrant, digest: Callable[[str], bytes], clock: Clock) -> None:
        self._find_grant = find_grant
        self._digest = digest
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._refreshing: dict[bytes, asyncio.Task[Grant | None]] = {}

    async def admit(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Grant:
        """Return the grant of the request's key; raises `InvalidKey`, the same for whatever is wrong."""
        key = credential(headers, query)
        if not well_formed(key):
            raise InvalidKey
        grant = await self._grant(self._digest(key))
        if grant is None or not grant.valid_at(self._clock.now()):
            raise InvalidKey
        return grant

    async def aclose(self) -> None:
        """Wait for the look-ups under way."""
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    async def _grant(self, digest: bytes) -> Grant | None:
        remembered = self._remembered.get(digest)
        if remembered is None:
            return await self._look_up(digest)
        age = self._clock.monotonic() - remembered.at
        if age >= GRANT_SECONDS_MAX:
            return await self._look_up(digest)
        if age >= REFRESH_AFTER_SECONDS:
            self._look_up(digest)
        return remembered.grant

    def _look_up(self, digest: bytes) -> asyncio.Task[Grant | None]:
        # Many requests may ask for one key at once; they share one look-up.
        task = self._refreshing.get(digest)
        if task is None:
            task = asyncio.create_task(self._refresh(digest))
            self._refreshing[digest] = task
            task.add_done_callback(lambda _: self._refreshing.pop(digest, None))
        return task

    async def _refresh(self, digest: bytes) -> Grant | None:
        at = self._clock.monotonic()
        grant = await self._find_grant(digest)
        self._remembered[digest] = _Remembered(grant, at)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > GRANTS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return grant


def credential(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str:
    """Return the one bearer token of a request, or an empty string where there is none.

    A second, different credential in another place would let meter and the upstream see different callers,
    and a key in a URL ends up in logs: both are refused.
    """
    if any(name.lower() in _KEY_PARAMETERS for name, _ in parse_qsl(query.decode("latin-1"))):
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
