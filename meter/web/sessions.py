"""From a cookie of the spend page to whoever signed in, and back.

The admin API knows no sessions: a cookie opens the page and nothing else. Nothing is stored of a session but
that somebody signed out of it, in memory.
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from meter.core.access import Asker, Least
from meter.core.clock import Clock
from meter.core.errors import InvalidAdminToken, NotPermitted
from meter.core.sessions import Session, form_token, is_form_token, seal, session, unseal
from meter.web.askers import Askers

SIGNED_OUT_MAX = 10_000
_ID_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class SessionKeys:
    """What sessions and their forms are signed with, each by itself."""

    sessions: bytes
    forms: bytes


class Visitor(NamedTuple):
    """Who looks at the page, and in which session."""

    asker: Asker
    session_id: str


class Sessions:
    """Begins, finds and ends sessions."""

    def __init__(self, *, askers: Askers, keys: SessionKeys, lasts: timedelta, clock: Clock) -> None:
        self._askers = askers
        self._keys = keys
        self._clock = clock
        self.lasts = lasts
        self._signed_out: OrderedDict[str, None] = OrderedDict()

    async def begin(self, token: str, host: str = "", forwarded: Sequence[str] = ()) -> str:
        """Sign in; returns the cookie.

        Raises `InvalidAdminToken`, and `NotPermitted` for a token of a role that sees no spend.
        """
        asker = await self._askers.find(token, host, forwarded)
        if not asker.may(Least.TEAM):
            raise NotPermitted(f"A token of role '{asker.role}' is not enough for this page.")
        made = session(new_id(), self._askers.digest(token), self._clock.now(), self.lasts)
        return seal(made, self._keys.sessions)

    async def find(self, cookie: str) -> Visitor:
        """Return who signed in; raises `InvalidAdminToken` where that has ended, or never was."""
        found = self._read(cookie)
        if found is None:
            raise InvalidAdminToken
        return Visitor(await self._askers.find_by_digest(found.digest), found.id)

    def end(self, cookie: str) -> None:
        """Sign out: the cookie is worth nothing from now on, wherever it may have been copied to."""
        found = self._read(cookie)
        if found is not None:
            self._signed_out[found.id] = None
            if len(self._signed_out) > SIGNED_OUT_MAX:
                self._signed_out.popitem(last=False)

    def form_token(self, session_id: str) -> str:
        """Return what forms of a session carry."""
        return form_token(session_id, self._keys.forms)

    def is_form_token(self, given: str, session_id: str) -> bool:
        """Say whether a form is one of this session's."""
        return is_form_token(given, session_id, self._keys.forms)

    def _read(self, cookie: str) -> Session | None:
        found = unseal(cookie, self._keys.sessions)
        lasts = found is not None and found.lasts_at(self._clock.now()) and found.id not in self._signed_out
        return found if lasts else None


def new_id() -> str:
    """Make an id that nobody can guess."""
    return secrets.token_urlsafe(_ID_BYTES)
