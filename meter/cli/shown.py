"""How commands show what keys and tokens have in common."""

from datetime import datetime


def time(instant: datetime | None) -> str:
    """Show an instant to the minute."""
    return "-" if instant is None else instant.isoformat(timespec="minutes")


def state(expires_at: datetime | None, revoked_at: datetime | None, now: datetime) -> str:
    """Say whether a key or a token is still in use."""
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "in use"


def public_id(text: str, prefix: str) -> str:
    """Return the id of a whole key or token: whoever pastes it means it, and its secret is of no use here."""
    return text.split("_")[1] if text.startswith(prefix) and text.count("_") > 1 else text
