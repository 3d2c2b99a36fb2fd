"""Sessions of people on the spend page: what their cookie says, and how it is signed.

A cookie names the token that somebody signed in with by its digest, so that each request looks the token up
again: one that was revoked or has expired ends its sessions. The keys are made of the pepper for these two
purposes alone (`core/subkeys.py`).
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import msgspec

SESSIONS = "sessions"
FORMS = "forms of the page"
# Several times what a session takes; longer cookies are nobody's.
COOKIE_LENGTH_MAX = 1_000


class Session(msgspec.Struct, frozen=True, array_like=True):
    """A sign-in."""

    id: str
    """Random; forms of the page are bound to it."""
    digest: bytes
    """That of the token."""
    expires_at: int
    """In seconds since 1970."""

    def lasts_at(self, now: datetime) -> bool:
        """Say whether it has not come to its end."""
        return now.timestamp() < self.expires_at


def session(session_id: str, digest: bytes, now: datetime, lasts: timedelta) -> Session:
    """Begin a session."""
    return Session(session_id, digest, int((now.astimezone(UTC) + lasts).timestamp()))


def seal(made: Session, key: bytes) -> str:
    """Write a session down as a cookie's value."""
    written = msgspec.json.encode(made)
    return f"{_text(written)}.{_text(hmac.digest(key, written, 'sha256'))}"


def unseal(cookie: str, key: bytes) -> Session | None:
    """Read a cookie's value; `None` where nobody with this key has written it."""
    written, _, signature = cookie.partition(".")
    if len(cookie) > COOKIE_LENGTH_MAX:
        return None
    try:
        content = _bytes(written)
        if not hmac.compare_digest(hmac.digest(key, content, "sha256"), _bytes(signature)):
            return None
    except ValueError:
        return None
    found: Session = msgspec.json.decode(content, type=Session)
    return found


def form_token(session_id: str, key: bytes) -> str:
    """Return what a form carries, so that nobody else can have made it for this session."""
    return hmac.digest(key, session_id.encode(), "sha256").hex()


def is_form_token(given: str, session_id: str, key: bytes) -> bool:
    """Say whether a form is one of this session's."""
    return hmac.compare_digest(given.encode(), form_token(session_id, key).encode())


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
