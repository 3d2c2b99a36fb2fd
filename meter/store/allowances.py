"""Allowances: what each process has reserved of windows, and may spend without asking.

A row belongs to a holder, which is a process by the name of its journal. It shrinks as the holder's events
get into the ledger, or by giving back, and goes when the whole journal has been shipped. Until then nobody
else gets it, however long its holder has been silent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from meter.core.allowances import Answer, Ask, Beat, Room, Share, Wish, decide, extra
from meter.core.audit import Signature
from meter.core.budgets import Budget, Standing
from meter.core.errors import Conflict, NotFound
from meter.core.events import UsageEvent
from meter.store import audit, budgets, clock, ledger, windows
from meter.store.database import Database
from meter.store.tables import allowances, budget_windows, holders
from meter.store.tables import budgets as budgets_table

# A holder that was heard of this recently is at work, and what it holds is no one's to take away.
ALIVE_SECONDS = 30.0
# Until then a request that began in a window may still need its allowance there.
ENDED_FOR = timedelta(hours=1)

_HELD = (
    sa.select(
        budget_windows.c.budget_id,
        budget_windows.c.start,
        allowances.c.id,
        allowances.c.amount,
        (budgets_table.c.limit - budget_windows.c.spent - budget_windows.c.reserved).label("room"),
    )
    .select_from(allowances.join(budget_windows).join(budgets_table))
    .where(allowances.c.holder == sa.bindparam("by"))
)


def reserve(
    database: Database, holder: str, wishes: Sequence[Wish], asks: Sequence[Ask], now: datetime
) -> Answer:
    """Decide about asks, which name wishes by their places, and reserve what the admitted ones need."""
    with database.write() as connection:
        windows.share_appends(connection)
        _know(database, connection, holder, now)
        known = {budget.id: budget for budget in budgets.read(connection)}
        keys = [(wish.budget_id, wish.span) for wish in wishes]
        there = {key: known[key[0]] for key in keys if key[0] in known}
        made = windows.make(database, connection, there)
        found = windows.lock(connection, (each.id for each in made.values()))
        rows = {key: found[each.id] for key, each in made.items()}
        rooms = [_room(rows.get(key), wish) for key, wish in zip(keys, wishes, strict=True)]
        decisions = decide(asks, dict(enumerate(rooms)))
        shares = [
            _grant(database, connection, holder, rows.get(key), room, wish)
            for key, wish, room in zip(keys, wishes, rooms, strict=True)
        ]
    full = [
        None if at is None else _standing(known[keys[at][0]], rows[keys[at]], rooms[at]) for at in decisions
    ]
    return Answer(full, shares)


def _room(row: sa.Row[Any] | None, wish: Wish) -> Room:
    if row is None:
        # Its budget has been removed, and nothing limits the request there.
        return Room(held=0, free=2**63)
    return Room(held=wish.held, free=row.limit - row.spent - row.reserved)


def _grant(
    database: Database,
    connection: sa.Connection,
    holder: str,
    row: sa.Row[Any] | None,
    room: Room,
    wish: Wish,
) -> Share | None:
    if row is None:
        return None
    amount = room.taken + extra(room.free, wish.need, wish.wanted)
    statement = database.insert(allowances).values(holder=holder, window_id=row.id, amount=amount)
    added = {"amount": allowances.c.amount + amount}
    statement = statement.on_conflict_do_update(index_elements=["holder", "window_id"], set_=added)
    share = connection.execute(statement.returning(allowances.c.id, allowances.c.amount)).one()
    if amount:
        windows.reserve(connection, row.id, amount)
    left = row.limit - row.spent - row.reserved - amount
    return Share(wish.budget_id, wish.span.start, share.id, share.amount, left)


def _standing(budget: Budget, row: sa.Row[Any], room: Room) -> Standing:
    reserved = row.reserved + room.taken
    return Standing(budget=budget, start=row.start, end=row.end, spent=row.spent, reserved=reserved)


def give_back(database: Database, holder: str, amounts: Mapping[int, int], now: datetime) -> dict[int, Share]:
    """Free parts of a holder's allowances; returns everything that it holds then."""
    with database.write() as connection:
        windows.share_appends(connection)
        # Whoever asks next for this holder waits for this transaction, also where nobody hears how it ends.
        _know(database, connection, holder, now)
        mine = sa.select(allowances).where(allowances.c.id.in_(amounts), allowances.c.holder == holder)
        windows.lock(connection, [row.window_id for row in connection.execute(mine)])
        for row in connection.execute(mine.order_by(allowances.c.id).with_for_update()).all():
            _free(connection, row, min(amounts[row.id], row.amount))
        return _held(connection, holder)


def settle(
    database: Database, holder: str, events: Sequence[UsageEvent], posted_at: datetime
) -> dict[int, Share]:
    """Append a holder's events to the ledger, as `ledger.append`; returns everything that it holds then."""
    with database.write() as connection:
        ledger.post(database, connection, events, posted_at)
        return _held(connection, holder)


def held(database: Database, holder: str) -> dict[int, Share]:
    """Return everything that a holder holds, by the ids of allowances."""
    with database.read() as connection:
        return _held(connection, holder)


def beat(database: Database, holder: str, now: datetime, *, holds: bool) -> Beat:
    """Say that a holder lives, if it holds anything, and learn what has changed.

    `now` is this machine's time, which counts where the database is a file of it.
    """
    if holds:
        with database.write() as connection:
            _know(database, connection, holder, now)
            _forget_ended(connection, holder, now)
    with database.read() as connection:
        return Beat(clock.now(connection, now), budgets.read(connection), _held(connection, holder))


def _know(database: Database, connection: sa.Connection, holder: str, now: datetime) -> None:
    at = clock.now(connection, now)
    row = {"holder": holder, "started_at": at, "heartbeat_at": at}
    statement = database.insert(holders).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["holder"], set_={"heartbeat_at": at}))


def _forget_ended(connection: sa.Connection, holder: str, now: datetime) -> None:
    """Take away the empty allowances of windows that have ended, of which there are more every hour."""
    ended_by = clock.now(connection, now) - ENDED_FOR
    ended = sa.select(budget_windows.c.id).where(budget_windows.c.end < ended_by)
    empty = (allowances.c.holder == holder) & (allowances.c.amount == 0) & allowances.c.window_id.in_(ended)
    connection.execute(sa.delete(allowances).where(empty))


def release(database: Database, holder: str) -> None:
    """Free everything that a holder holds: its journal has been shipped to the end."""
    with database.write() as connection:
        windows.share_appends(connection)
        # As whoever reserves: the holder first, then windows, then allowances.
        connection.execute(_locked(holder))
        _release(connection, holder)


def write_off(database: Database, holder: str, by: Signature) -> int:
    """Free what a holder holds whose journal is lost; returns how many allowances those were.

    Raises `Conflict` where it is at work, and `NotFound` where nobody has heard of it.
    """
    with database.write() as connection:
        windows.share_appends(connection)
        row = connection.execute(
            sa.select(holders).where(holders.c.holder == holder).with_for_update()
        ).first()
        if row is None:
            raise NotFound(
                f"There is no holder {holder!r}; see: meter budgets list --holders", param="holder"
            )
        silent = (clock.now(connection, by.at) - row.heartbeat_at).total_seconds()
        if silent < ALIVE_SECONDS:
            raise Conflict(f"{holder} was heard of {silent:.0f} s ago: stop it first.", param="holder")
        count = _release(connection, holder)
        audit.note(connection, by, "budget.release", holder, allowances=count)
        return count


def _locked(holder: str) -> sa.Select[Any]:
    return sa.select(holders).where(holders.c.holder == holder).with_for_update()


def _release(connection: sa.Connection, holder: str) -> int:
    query = sa.select(allowances).where(allowances.c.holder == holder)
    windows.lock(connection, [row.window_id for row in connection.execute(query)])
    rows = connection.execute(query.order_by(allowances.c.id).with_for_update()).all()
    for row in rows:
        _free(connection, row, row.amount)
    connection.execute(sa.delete(allowances).where(allowances.c.holder == holder))
    connection.execute(sa.delete(holders).where(holders.c.holder == holder))
    return len(rows)


def _free(connection: sa.Connection, row: sa.Row[Any], amount: int) -> None:
    if amount > 0:
        windows.reserve(connection, row.window_id, -amount)
        change = {"amount": allowances.c.amount - amount}
        connection.execute(sa.update(allowances).where(allowances.c.id == row.id).values(change))


def _held(connection: sa.Connection, holder: str) -> dict[int, Share]:
    rows = connection.execute(_HELD, {"by": holder})
    return {row.id: Share(row.budget_id, row.start, row.id, row.amount, row.room) for row in rows}


class Holder(NamedTuple):
    """A process that may hold allowances, as an operator sees it."""

    holder: str
    silent_seconds: float
    allowances: int

    @property
    def stranded(self) -> bool:
        """Say whether nobody has heard of it for long, so that what it holds waits for its journal."""
        return self.silent_seconds >= ALIVE_SECONDS


def list_holders(database: Database, now: datetime) -> list[Holder]:
    """Return who holds allowances."""
    count = sa.func.count(allowances.c.id)
    query = (
        sa.select(holders, count.label("allowances"))
        .outerjoin(allowances, allowances.c.holder == holders.c.holder)
        .group_by(*holders.c)
        .order_by(holders.c.started_at)
    )
    with database.read() as connection:
        at = clock.now(connection, now)
        rows = connection.execute(query).all()
    return [Holder(row.holder, (at - row.heartbeat_at).total_seconds(), row.allowances) for row in rows]
