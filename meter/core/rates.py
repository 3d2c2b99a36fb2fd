"""Rates: how much of something went by in the last minute, and when there will be room again.

In memory a minute is any sixty seconds: a `Window` never admits more than its limit in one. Redis keeps two
counters, of the running minute and of the last, and the last counts by what is left of it (`weigh`).
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from meter.core.errors import RateLimitExceeded
from meter.core.limits import Limits

WINDOW_SECONDS = 60
# What comes within it is one entry, so that a window has at most 241 of them, whatever its rate.
STEP_SECONDS = 0.25
# The times of Redis are in milliseconds.
TICK_SECONDS = 0.001
# As many old windows are looked at for every new one, so that they do not pile up.
SWEPT_AT_ONCE = 2
# The members of a rate that say what is counted, whatever the limit is at the time.
COUNTED = 3

Measure = Literal["requests", "tokens"]
Owner = Literal["key", "team"]
# The first members of a rate: an owner, its id and a measure.
Counted = tuple[object, ...]


class Rate(NamedTuple):
    """A limit on what goes by in a minute."""

    owner: Owner
    owner_id: str
    measure: Measure
    limit: int

    @property
    def name(self) -> str:
        """What it is counted under, whatever the limit is at the time."""
        return f"{self.owner}:{self.owner_id}:{self.measure}"


class Asked(NamedTuple):
    """How much is asked of a rate."""

    rate: Rate
    amount: int


class Standing(NamedTuple):
    """How much of a rate is used."""

    used: int
    reset_seconds: float
    """Until nothing counts any more."""
    room_seconds: float
    """Until what was asked for fits."""


class Entry:
    """What went by within one step."""

    __slots__ = ("amount", "began_at", "ended_at")

    def __init__(self, at: float) -> None:
        self.began_at = at
        self.ended_at = at
        self.amount = 0


class Window:
    """What went by in the last minute.

    An entry counts until a minute after the last thing in it, so that the limit holds in any sixty seconds;
    the first thing in it counts longer, by one step at most.
    """

    __slots__ = ("_entries", "_used")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._used = 0

    def used(self, now: float) -> int:
        """Return what counts now."""
        entries = self._entries
        while entries and entries[0].ended_at + WINDOW_SECONDS <= now:
            self._used -= entries.popleft().amount
        return self._used

    def idle(self, now: float) -> bool:
        """Say whether nothing counts now."""
        self.used(now)
        return not self._entries

    def add(self, amount: int, now: float) -> Entry:
        """Count something now; returns the entry that it is in."""
        # What has run out goes here too: a window may be added to without ever being looked at.
        self.used(now)
        return self.put(amount, now)

    def put(self, amount: int, now: float) -> Entry:
        """Do the same right after `used` at the same time."""
        entries = self._entries
        entry = entries[-1] if entries else None
        if entry is None or now - entry.began_at >= STEP_SECONDS:
            entry = Entry(now)
            entries.append(entry)
        entry.ended_at = now
        entry.amount += amount
        self._used += amount
        return entry

    def take_back(self, amount: int, entry: Entry, now: float) -> None:
        """Count less of an entry, unless it counts no more anyway."""
        self.used(now)
        if self._entries and entry.began_at >= self._entries[0].began_at:
            entry.amount -= amount
            self._used -= amount

    def standing(self, amount: int, limit: int, now: float) -> Standing:
        """Say how much is used, and when so much more fits."""
        used = self.used(now)
        reset_seconds = self._entries[-1].ended_at + WINDOW_SECONDS - now if self._entries else 0.0
        excess, room_seconds = used + amount - limit, 0.0
        for entry in self._entries:
            if excess <= 0:
                break
            excess -= entry.amount
            room_seconds = entry.ended_at + WINDOW_SECONDS - now
        return Standing(used, reset_seconds, room_seconds)


class Windows:
    """The windows of all rates; those that nobody used for a minute are dropped on the way."""

    def __init__(self) -> None:
        # By their last use.
        self._windows: OrderedDict[Counted, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def refused(self, asked: Iterable[Asked], now: float) -> Asked | None:
        """Return the first of the rates that has no room."""
        for each in asked:
            rate, amount = each
            window = self._windows.get(rate[:COUNTED])
            if (0 if window is None else window.used(now)) + amount > rate.limit:
                return each
        return None

    def add(self, rate: Rate, amount: int, now: float) -> Entry:
        """Count something, whether or not there is room."""
        counted = rate[:COUNTED]
        window = self._windows.get(counted)
        if window is None:
            window = self._new(counted, now)
        else:
            self._windows.move_to_end(counted)
        return window.add(amount, now)

    def add_all(self, asked: Iterable[Asked], now: float) -> list[Entry]:
        """Count all of this right after it was not `refused` at the same time."""
        windows, entries = self._windows, []
        for rate, amount in asked:
            counted = rate[:COUNTED]
            window = windows.get(counted)
            if window is None:
                window = self._new(counted, now)
            else:
                windows.move_to_end(counted)
            entries.append(window.put(amount, now))
        return entries

    def take_back(self, rate: Rate, amount: int, entry: Entry, now: float) -> None:
        """Count less of an entry."""
        window = self._windows.get(rate[:COUNTED])
        if window is not None:
            window.take_back(amount, entry, now)

    def standing(self, asked: Asked, now: float) -> Standing:
        """Say how a rate stands."""
        window = self._windows.get(asked.rate[:COUNTED]) or Window()
        return window.standing(asked.amount, asked.rate.limit, now)

    def _new(self, counted: Counted, now: float) -> Window:
        self._sweep(now)
        window = self._windows[counted] = Window()
        return window

    def _sweep(self, now: float) -> None:
        for _ in range(min(SWEPT_AT_ONCE, len(self._windows))):
            name = next(iter(self._windows))
            if not self._windows[name].idle(now):
                return
            del self._windows[name]


class Counters(NamedTuple):
    """The two counters that Redis keeps of a rate, and how long each will be there."""

    previous: int
    previous_seconds: float
    current: int
    current_seconds: float


def weigh(counters: Counters, amount: int, limit: int) -> Standing:
    """Say how a rate stands that is counted in Redis: the running minute, and what is left of the last."""
    previous, previous_seconds, current, current_seconds = counters
    used = math.floor(previous * previous_seconds / WINDOW_SECONDS) + current
    reset_seconds = current_seconds if current else previous_seconds
    free = limit - amount - current
    if used + amount <= limit:
        room_seconds = 0.0
    elif free >= 0:
        room_seconds = _seconds_until(previous, previous_seconds, free)
    else:
        # Not before the running minute has become the last one, and counts by what is left of it.
        until_then = max(0.0, current_seconds - WINDOW_SECONDS)
        room_seconds = until_then + _seconds_until(current, WINDOW_SECONDS, max(0, limit - amount))
    return Standing(max(0, used), reset_seconds, room_seconds)


def _seconds_until(count: int, seconds: float, free: int) -> float:
    """Say when a counter that is there for so long counts for what is free; parts of one don't count."""
    return max(0.0, seconds - (free + 1) * WINDOW_SECONDS / count) + TICK_SECONDS


def rates_of(owner: Owner, owner_id: str, limits: Limits) -> list[Rate]:
    """List the rates that limits set."""
    rates = []
    if limits.rpm:
        rates.append(Rate(owner, owner_id, "requests", limits.rpm))
    if limits.tpm:
        rates.append(Rate(owner, owner_id, "tokens", limits.tpm))
    return rates


def refusal(asked: Asked, standings: Mapping[Rate, Standing]) -> RateLimitExceeded:
    """Say which rate has no room and when it will; headers show it, and the others of its owner."""
    rate, standing = asked.rate, standings[asked.rate]
    headers = tuple(header for each in standings.items() for header in _headers(*each))
    if asked.amount > rate.limit:
        return RateLimitExceeded(
            f"This request counts as {asked.amount} {rate.measure}, and the limit of this {rate.owner} is "
            f"{rate.limit} {rate.measure} a minute, so that it can never pass: make it smaller, or ask for a "
            "higher limit.",
            retry_after_seconds=None,
            headers=headers,
        )
    needed = f", and this request needs {asked.amount}" if rate.measure == "tokens" else ""
    wait = max(1, math.ceil(standing.room_seconds))
    return RateLimitExceeded(
        f"The limit of this {rate.owner} is {rate.limit} {rate.measure} a minute; {standing.used} are used"
        f"{needed}. Try again in {wait} s.",
        retry_after_seconds=wait,
        headers=headers,
    )


def duration(seconds: float) -> str:
    """Write a duration as OpenAI does in headers: `1s`, `6m0s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _headers(rate: Rate, standing: Standing) -> tuple[tuple[str, str], ...]:
    remaining = max(0, rate.limit - standing.used)
    return (
        (f"x-ratelimit-limit-{rate.measure}", str(rate.limit)),
        (f"x-ratelimit-remaining-{rate.measure}", str(remaining)),
        (f"x-ratelimit-reset-{rate.measure}", duration(standing.reset_seconds)),
    )
