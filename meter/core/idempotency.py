"""Asking twice with one Idempotency-Key: what is done once, and what the second answer is."""

import re
from hashlib import sha256
from typing import NamedTuple

from meter.core.errors import IdempotencyConflict

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Errand(NamedTuple):
    """Something asked for with a key: a digest of who, what and which key, and one of the body."""

    digest: bytes
    request_digest: bytes


class Past(NamedTuple):
    """What is known of an errand that was noted before."""

    same_request: bool
    status: int | None
    """`None`: it is under way, or nobody knows how it ended."""
    response: str | None


def errand(key: str, asker_id: str, route: str, body: bytes) -> Errand:
    """Return the errand of a request; raises `ValueError` for what is no key."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("'Idempotency-Key' has 1 to 255 visible ASCII characters, such as a UUID")
    return Errand(sha256(f"{asker_id}\x00{route}\x00{key}".encode()).digest(), sha256(body).digest())


def answered(past: Past) -> tuple[int, str]:
    """Return the answer that was given; raises `IdempotencyConflict` where it cannot be given again."""
    if not past.same_request:
        raise IdempotencyConflict("This Idempotency-Key was used for another request; use a new one.")
    if past.status is None or past.response is None:
        raise IdempotencyConflict(
            "A request with this Idempotency-Key is under way, or was cut off: look whether it did what you "
            "asked for, and use a new key."
        )
    return past.status, past.response
