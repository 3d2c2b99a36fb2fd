"""The price book in the database: versions are added, and never changed or taken away."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from meter.core.audit import Signature
from meter.core.model_names import OWN
from meter.core.prices import Price
from meter.store import audit
from meter.store.database import Database
from meter.store.tables import prices

# These are documents in the database.
_DOCUMENTS = ("hours", "rates", "long_context")


# Any number that nothing else on the server locks: "prices" in ASCII.
_LOCK = int.from_bytes(b"prices")


def add(database: Database, versions: Iterable[Price], by: Signature | None = None) -> list[Price]:
    """Add versions, all of them or none; returns them with the numbers that the database gave them.

    What somebody adds, rather than meter itself, is noted in the audit log.
    """
    added = list(versions)
    if not added:
        return []
    insert = sa.insert(prices).returning(prices.c.id, sort_by_parameter_order=True)
    with database.write() as connection:
        _lock(connection)
        numbers = connection.scalars(insert, [_row(version) for version in added]).all()
        if by is not None:
            _note(connection, by, added, numbers)
    return [
        msgspec.structs.replace(version, id=number) for version, number in zip(added, numbers, strict=True)
    ]


def add_first(database: Database, versions: Iterable[Price], package: str) -> int:
    """Add versions of a package unless it has some here; returns how many were added."""
    rows = [_row(version) for version in versions]
    with database.write() as connection:
        # Two servers that start on one database may both have found none.
        _lock(connection)
        if not rows or connection.scalar(_any_of(package)):
            return 0
        connection.execute(sa.insert(prices), rows)
    return len(rows)


def knows_package(database: Database, package: str) -> bool:
    """Say whether there are versions of a package, of whatever version of it."""
    with database.read() as connection:
        return bool(connection.scalar(_any_of(package)))


def load(database: Database) -> list[Price]:
    """Return all versions there are, in the order in which they were added."""
    with database.read_long() as connection:
        rows = connection.execute(sa.select(prices).order_by(prices.c.id)).mappings().all()
    return [read_price(row) for row in rows]


def latest_id(database: Database) -> int:
    """Return the number of the last version, by which a change of the book is noticed; 0 is an empty one."""
    with database.read() as connection:
        return connection.scalar(sa.select(sa.func.max(prices.c.id))) or 0


def _note(connection: sa.Connection, by: Signature, added: Sequence[Price], numbers: Sequence[int]) -> None:
    models = {version.model for version in added}
    target = models.pop() if len(models) == 1 else f"{len(models)} models"
    sources = sorted({version.source for version in added})
    audit.note(connection, by, "price.add", target, ids=[numbers[0], numbers[-1]], sources=sources)


def _lock(connection: sa.Connection) -> None:
    """Let versions be added by one after the other.

    A number that is given out first must not appear last: whoever has seen the higher one looks for no lower.
    SQLite has one writer as it is.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _any_of(package: str) -> sa.Select[tuple[bool]]:
    # Own prices may be from a file of any name.
    listed = prices.c.source.startswith(f"{package} ", autoescape=True) & (prices.c.catalog != OWN)
    return sa.select(sa.exists().where(listed))


def _row(version: Price) -> dict[str, Any]:
    values = {name: getattr(version, name) for name in Price.__struct_fields__ if name != "id"}
    return values | {name: msgspec.to_builtins(values[name]) for name in _DOCUMENTS}


def read_price(row: sa.RowMapping) -> Price:
    """Read a row of the book."""
    return msgspec.convert({name: row[name] for name in Price.__struct_fields__}, Price)
