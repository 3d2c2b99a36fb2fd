"""What all servers on one database must agree about: the pepper under which keys were hashed."""

import hashlib
import hmac

import sqlalchemy as sa

from meter.store.database import Database
from meter.store.tables import installation

_FINGERPRINT = "pepper_fingerprint"
_FINGERPRINTED = b"meter: fingerprint of the pepper"


class WrongPepper(ValueError):
    """The keys in this database were made under another pepper, so that none of them would be known."""

    def __init__(self) -> None:
        super().__init__(
            "this is not the pepper under which the keys in the database were made, so that no key would "
            "work. Set METER_PEPPER, or the file 'pepper' in the data directory, to what it was."
        )


def check_pepper(database: Database, pepper: bytes) -> None:
    """Record the pepper's fingerprint on first use; from then on raise `WrongPepper` on any other."""
    row = {"name": _FINGERPRINT, "value": _fingerprint(pepper)}
    with database.write() as connection:
        # Whoever comes first decides; the others read what is there.
        connection.execute(database.insert(installation).values(row).on_conflict_do_nothing())
        recorded = _recorded(connection)
    _compare(recorded or "", pepper)


def examine_pepper(database: Database, pepper: bytes) -> bool:
    """Raise `WrongPepper` where another one is recorded; says whether any is."""
    with database.read() as connection:
        recorded = _recorded(connection)
    if recorded is not None:
        _compare(recorded, pepper)
    return recorded is not None


def _recorded(connection: sa.Connection) -> str | None:
    query = sa.select(installation.c.value).where(installation.c.name == _FINGERPRINT)
    found: str | None = connection.scalar(query)
    return found


def _compare(recorded: str, pepper: bytes) -> None:
    if not hmac.compare_digest(recorded, _fingerprint(pepper)):
        raise WrongPepper


def _fingerprint(pepper: bytes) -> str:
    return hmac.new(pepper, _FINGERPRINTED, hashlib.sha256).hexdigest()
