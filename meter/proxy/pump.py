"""The pump: one attempt at an upstream, in a task of its own that owns the accounting.

A client that leaves, stalls or is cancelled cannot cancel the settling of what was used; a client that reads
slowly slows down the reading of the upstream.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import NamedTuple

import httpx
import msgspec

from meter.core.attempts import Ending, conclude, succeeded
from meter.core.clock import Clock
from meter.core.errors import MeterError, UpstreamUnreachable
from meter.core.events import Outcome
from meter.core.strip import Stripper
from meter.core.tap import Tap
from meter.proxy.account import Account
from meter.proxy.headers import Pairs, for_client
from meter.proxy.order import Errand
from meter.proxy.outlet import Head, Outlet
from meter.proxy.upstream import Exchange

# What a killed process forgets of its streams is at most what was emitted in this time.
PROGRESS_SECONDS = 0.2

log = logging.getLogger(__name__)


class Bounds(NamedTuple):
    """How long an answer may go on, and how large it may become; 0 is no limit."""

    hangup_grace_seconds: float
    stream_seconds_max: float = 0
    """From its headers on."""
    response_bytes_max: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What a pump needs to know of its request."""

    errand: Errand
    strips: bool
    """Whether the request was made to ask for usage, so that the answer to that has to be taken out."""
    asked_at: float
    """When the request had come, by the monotonic clock."""


class Pump:
    """One attempt: reads the upstream, feeds the tap, settles, whatever the client does."""

    # What every attempt begins with stands here once; a few microseconds of each would go into setting it.
    _task: asyncio.Task[None] | None = None
    _head: Head | None = None
    _begun = False
    _refusal: MeterError | None = None
    _reading = False
    _stop_at: float | None = None
    _alarm: asyncio.TimerHandle | None = None
    _expired = False
    _stopped_by: Outcome | None = None
    _doubted = False
    _left = False
    _missed = False
    _blocked = False
    _tap: Tap | None = None
    _stripper: Stripper | None = None
    _status: int | None = None
    _ttfb_ms: int | None = None
    _first_token_seconds: float | None = None
    _not_stripped = False
    _last = b""
    _whole = False
    _last_moment: float | None = None

    def __init__(self, account: Account, plan: Plan, outlet: Outlet, *, bounds: Bounds, clock: Clock) -> None:
        self._account = account
        self._plan = plan
        self._outlet = outlet
        self._bounds = bounds
        self._monotonic = clock.monotonic
        self._started = self._noted_at = clock.monotonic()
        self._loop = asyncio.get_running_loop()
        self._bytes_left = bounds.response_bytes_max

    def doubt(self) -> None:
        """Say that the client may have left: stop after the grace, which every delivery begins anew.

        One that only closed its sending side reads on. One that is gone answers the first delivery with a
        reset, so that the next one finds the connection lost.
        """
        self._doubted = True
        self._note_leaving()
        self._stop(Outcome.CLIENT_CLOSED, self._bounds.hangup_grace_seconds)

    def abandon(self) -> None:
        """Say that the client has left: read on for the grace, delivering to nobody."""
        if not self._left:
            self._left = True
            self._note_leaving()
            self._stop(Outcome.CLIENT_CLOSED, self._bounds.hangup_grace_seconds)
            self._outlet.give_up()

    def interrupt(self) -> None:
        """End the attempt now, because meter is shutting down."""
        self._stop(Outcome.INTERRUPTED, 0)

    def cut(self) -> None:
        """End the attempt now, because there may be no more of it."""
        self._stop(Outcome.CUT, 0)

    async def run(self, task: asyncio.Task[None]) -> None:
        """Carry the attempt out in this task and settle it, once, however it ends."""
        self._task = task
        self._started = self._monotonic()
        outcome = Outcome.INTERRUPTED
        try:
            try:
                outcome = await self._carry_out()
            finally:
                ended = self._monotonic()
                safe = self._settle(outcome)
            await safe
            added = self._started - self._plan.asked_at + self._monotonic() - ended
            self._account.timed(added, self._first_token_seconds)
            self._tell_end()
        finally:
            # Whatever went wrong, nobody waits for more.
            self._outlet.end(whole=False)
            self._account.close()

    async def _carry_out(self) -> Outcome:
        if self._stop_at is not None and self._stop_at <= self._loop.time():
            return self._stopped()
        self._reading = True
        try:
            try:
                exchange = await self._plan.errand.send()
            finally:
                self._plan.errand.forget()
            try:
                self._head = self._read_head(exchange)
                if not exchange.whole:
                    self._limit_time()
                    self._begun = True
                    self._outlet.begin(self._head)
                await self._read(exchange)
            finally:
                if not exchange.over:
                    await exchange.aclose()
        except MeterError as refusal:
            self._refusal = refusal
            return Outcome.UNREACHABLE
        except httpx.TimeoutException:
            return self._ended(Outcome.UPSTREAM_TIMEOUT)
        except httpx.TransportError:
            return self._ended(Outcome.UPSTREAM_CLOSED)
        except asyncio.CancelledError:
            if not self._expired or self._task is None or self._task.uncancel() > 0:
                raise
            return self._stopped()
        finally:
            self._reading = False
            if self._alarm is not None:
                self._alarm.cancel()
        return self._ended(Outcome.OK)

    def _read_head(self, exchange: Exchange) -> Head:
        self._status = exchange.status
        self._ttfb_ms = self._ms_so_far()
        # The first of each name counts.
        found = dict(reversed(exchange.headers))
        content_type = found.get(b"content-type", b"").decode("latin-1")
        encoding = found.get(b"content-encoding", b"").decode("latin-1")
        cost = found.get(b"x-litellm-response-cost")
        self._tap = Tap(
            content_type=content_type,
            content_encoding=encoding,
            response_cost=cost.decode("latin-1") if cost else None,
            count_tokens=self._account.count_tokens,
        )
        headers = for_client(exchange.headers, self._account.attempt.event_id)
        if self._plan.strips and is_event_stream(content_type):
            headers = self._strip(headers, encoding)
        return Head(exchange.status, headers)

    def _strip(self, headers: Pairs, encoding: str) -> Pairs:
        if encoding not in {"", "identity"}:
            # It was asked not to compress; what cannot be read as a stream of events passes as it is.
            self._not_stripped = True
            return headers
        self._stripper = Stripper()
        return [(name, value) for name, value in headers if name != b"content-length"]

    async def _read(self, exchange: Exchange) -> None:
        while (chunk := await exchange.read()) is not None:
            self._observe(chunk)
            if self._bounds.response_bytes_max:
                self._limit_size(len(chunk))
            shown = chunk if self._stripper is None else self._stripper.feed(chunk)
            if exchange.over:
                # What the client knows the end by comes after the settle.
                self._last += shown
            elif shown and not self._left:
                self._outlet.give(shown)
                if self._outlet.full:
                    await self._wait_for_room()
                if self._doubted:
                    self._go_on()
        self._whole = True
        if self._stripper is not None:
            self._last += self._stripper.finish()

    async def _wait_for_room(self) -> None:
        self._blocked = True
        await self._outlet.room()
        self._blocked = False

    def _observe(self, chunk: bytes) -> None:
        tap = self._tap
        if tap is None:
            return
        tap.feed(chunk)
        now = self._monotonic()
        if self._first_token_seconds is None and tap.emitted_tokens:
            self._first_token_seconds = now - self._started
        if now - self._noted_at >= PROGRESS_SECONDS:
            self._noted_at = now
            self._account.progress(tap.emitted_tokens, self.cut)

    def _note_leaving(self) -> None:
        """Note whether the client leaves before it was told everything; many close at `[DONE]`."""
        told = self._tap is not None and self._tap.done and not self._blocked and self._outlet.empty
        self._missed = self._missed or not told

    def _stopped(self) -> Outcome:
        if self._stopped_by is not Outcome.CLIENT_CLOSED:
            return self._ended(self._stopped_by or Outcome.INTERRUPTED)
        # Whoever was in doubt is not waited for at the end either.
        self.abandon()
        return self._ended(Outcome.OK)

    def _ended(self, outcome: Outcome) -> Outcome:
        # An upstream that refuses is no completion, however the reading of its refusal ended.
        if self._status is not None and not succeeded(self._status):
            return Outcome.UPSTREAM_ERROR
        return Outcome.CLIENT_CLOSED if self._missed and outcome is Outcome.OK else outcome

    def _settle(self, outcome: Outcome) -> Awaitable[None]:
        ending = Ending(
            outcome=outcome,
            status=self._status,
            ttfb_ms=self._ttfb_ms,
            duration_ms=self._ms_so_far(),
            anomalies=self._anomalies(),
        )
        observation = None if self._tap is None else self._tap.finish(cut=not self._whole)
        return self._account.settle(conclude(self._account.attempt, ending, observation))

    def _anomalies(self) -> tuple[str, ...]:
        gave_up = self._stripper is not None and self._stripper.gave_up
        return ("not_stripped",) if self._not_stripped or gave_up else ()

    def _tell_end(self) -> None:
        """Tell the client the end, or why there is no answer at all."""
        if self._head is None:
            refusal = self._refusal or UpstreamUnreachable("The request was ended before an answer came.")
            self._account.refused(refusal)
            self._outlet.refuse(refusal)
        elif self._begun:
            self._outlet.end(self._last, whole=self._whole)
        elif self._whole:
            self._outlet.answer(self._head, self._last)
        else:
            self._outlet.begin(self._head)
            self._outlet.end(self._last, whole=False)

    def _stop(self, outcome: Outcome, after_seconds: float) -> None:
        stop_at = self._loop.time() + after_seconds
        if self._stop_at is not None and self._stop_at <= stop_at:
            return
        self._stopped_by = outcome
        self._move_end(stop_at)

    def _go_on(self) -> None:
        """Begin the grace anew, unless something else ends the attempt."""
        if self._stopped_by is Outcome.CLIENT_CLOSED:
            stop_at = self._loop.time() + self._bounds.hangup_grace_seconds
            if self._last_moment is None or stop_at < self._last_moment:
                self._move_end(stop_at)

    def _limit_time(self) -> None:
        if self._bounds.stream_seconds_max:
            self._last_moment = self._loop.time() + self._bounds.stream_seconds_max
            self._stop(Outcome.CUT, self._bounds.stream_seconds_max)

    def _limit_size(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            self.cut()

    def _move_end(self, stop_at: float) -> None:
        self._stop_at = stop_at
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(stop_at, self._expire)

    def _expire(self) -> None:
        """End the reading where it waits, as a time-out does; what is being settled goes on."""
        if self._reading and self._task is not None:
            self._expired = True
            self._task.cancel()

    def _ms_so_far(self) -> int:
        return round((self._monotonic() - self._started) * 1000)


class Pumps:
    """All attempts under way, so that none is without an owner."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], Pump | None] = {}

    def __len__(self) -> int:
        return sum(pump is not None for pump in self._running.values())

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Have a task do something that makes an attempt, or carries one out."""
        task = asyncio.create_task(work)
        self._running[task] = None
        task.add_done_callback(self._done)

    def own(self, pump: Pump) -> asyncio.Task[None]:
        """Have the task that `start` has made own an attempt from now on; returns it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an attempt runs in a task")
        self._running[task] = pump
        return task

    async def drain(self, timeout_seconds: float) -> None:
        """Let the attempts finish; past the time, end what still runs and settle it as interrupted."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        # The door closes a moment after the draining begins, so that attempts may still join.
        while self._running and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tuple(self._running), timeout=left)
        while self._running:
            for pump in self._running.values():
                if pump is not None:
                    pump.interrupt()
            # Who is only being admitted becomes an attempt yet, and has to be ended too.
            await asyncio.wait(tuple(self._running), return_when=asyncio.FIRST_COMPLETED, timeout=0.1)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("an attempt ended by a fault of meter's own", exc_info=fault)


def is_event_stream(content_type: str) -> bool:
    """Say whether a content type is that of server-sent events."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"
