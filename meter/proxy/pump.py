"""The pump: one attempt at an upstream, in a task of its own that owns the accounting.

The client's side only takes chunks from a small bounded queue. A client that leaves, stalls or is cancelled
cannot cancel the settling of what was used; a client that reads slowly slows down the reading of the
upstream.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from meter.core.attempts import Attempt, Ending, conclude, succeeded
from meter.core.clock import Clock
from meter.core.errors import MeterError, UpstreamUnreachable
from meter.core.events import Outcome, UsageEvent
from meter.core.strip import Stripper
from meter.core.tap import Tap
from meter.proxy.handover import Handover, Head
from meter.proxy.headers import Pairs, for_client, value_of
from meter.proxy.upstream import Exchange, UpstreamClosedError, UpstreamStalledError

# What a killed process forgets of its streams is at most what was emitted in this time.
PROGRESS_SECONDS = 0.2

log = logging.getLogger(__name__)

Open = Callable[[], Awaitable[Exchange]]
CountTokens = Callable[[str], int]


class Books(NamedTuple):
    """Where an attempt is accounted for."""

    progress: Callable[[str, int], None]
    """Note how many tokens of an attempt have been emitted so far."""
    settle: Callable[[UsageEvent], Awaitable[None]]
    """Write the event at once; what it returns is done when the event is safe."""
    count_tokens: CountTokens
    timed: Callable[[float, float | None], None]
    """Note how many seconds meter added, and how many a stream took to its first token."""


class Plan(NamedTuple):
    """What a pump needs to know beside its attempt."""

    open: Open
    strips: bool
    """Whether the request was made to ask for usage, so that the answer to that has to be taken out."""
    hangup_grace_seconds: float
    asked_at: float
    """When the request had come, by the monotonic clock."""
    stream_seconds_max: float = 0
    """How long the answer may take from its headers on; 0 is any time, as below any size."""
    response_bytes_max: int = 0


class Pump:
    """One attempt: reads the upstream, feeds the tap, settles, whatever the client does."""

    def __init__(self, attempt: Attempt, plan: Plan, *, books: Books, clock: Clock) -> None:
        self._attempt = attempt
        self._plan = plan
        self._books = books
        self._clock = clock
        self._started = self._noted_at = clock.monotonic()
        self._loop = asyncio.get_running_loop()
        self._handover = Handover()
        self._head: Head | None = None
        self._begun = False
        self._reading: asyncio.Timeout | None = None
        self._stop_at: float | None = None
        self._stopped_by: Outcome | None = None
        self._doubted = False
        self._left = False
        self._missed = False
        self._tap: Tap | None = None
        self._stripper: Stripper | None = None
        self._status: int | None = None
        self._ttfb_ms: int | None = None
        self._first_token_seconds: float | None = None
        self._anomalies: list[str] = []
        self._last = b""
        self._whole = False
        self._last_moment: float | None = None
        self._bytes_left = plan.response_bytes_max
        self.complete = False
        """Whether the client's side was handed the whole response."""

    async def head(self) -> Head:
        """Wait for the response's beginning; raises `MeterError` where none came."""
        return await self._handover.head()

    async def take(self) -> bytes | None:
        """Return the next chunk; `None` is the end, early and with `complete` false where it broke off."""
        return await self._handover.take()

    def doubt(self) -> None:
        """Say that the client may have left: stop after the grace, which every delivery begins anew.

        One that only closed its sending side reads on. One that is gone answers the first delivery with a
        reset, so that the next one finds the connection lost.
        """
        self._doubted = True
        self._note_leaving()
        self._stop(Outcome.CLIENT_CLOSED, self._plan.hangup_grace_seconds)

    def abandon(self) -> None:
        """Say that the client has left: read on for the grace, delivering to nobody."""
        if not self._left:
            self._left = True
            self._note_leaving()
            self._stop(Outcome.CLIENT_CLOSED, self._plan.hangup_grace_seconds)
            self._handover.give_up()

    def interrupt(self) -> None:
        """End the attempt now, because meter is shutting down."""
        self._stop(Outcome.INTERRUPTED, 0)

    def cut(self) -> None:
        """End the attempt now, because there may be no more of it."""
        self._stop(Outcome.CUT, 0)

    async def run(self) -> None:
        """Carry the attempt out and settle it, once, however it ends."""
        try:
            await self._run()
        finally:
            # Whatever went wrong, nobody waits for more.
            self._handover.end()

    async def _run(self) -> None:
        self._started = self._clock.monotonic()
        outcome = Outcome.INTERRUPTED
        try:
            outcome = await self._carry_out()
        finally:
            ended = self._clock.monotonic()
            safe = self._account(outcome)
        await safe
        added = self._started - self._plan.asked_at + self._clock.monotonic() - ended
        self._books.timed(added, self._first_token_seconds)
        await self._hand_over_end()

    async def _carry_out(self) -> Outcome:
        try:
            async with asyncio.timeout_at(self._stop_at) as self._reading:
                await self._exchange()
        except MeterError as refusal:
            self._hand_over_head(refusal)
            return Outcome.UNREACHABLE
        except UpstreamClosedError:
            return self._ended(Outcome.UPSTREAM_CLOSED)
        except UpstreamStalledError:
            return self._ended(Outcome.UPSTREAM_TIMEOUT)
        except TimeoutError:
            if self._stopped_by is Outcome.CLIENT_CLOSED:
                # Whoever was in doubt is not waited for at the end either.
                self.abandon()
                return self._ended(self._as_left())
            return self._ended(self._stopped_by or Outcome.INTERRUPTED)
        finally:
            self._reading = None
        return self._ended(self._as_left())

    async def _exchange(self) -> None:
        exchange = await self._plan.open()
        self._limit_time()
        try:
            head = self._head = self._begin(exchange)
            await self._read(exchange, head)
        finally:
            await exchange.aclose()

    def _begin(self, exchange: Exchange) -> Head:
        self._status = exchange.status
        self._ttfb_ms = self._ms_so_far()
        content_type = value_of(exchange.headers, b"content-type")
        encoding = value_of(exchange.headers, b"content-encoding")
        self._tap = Tap(
            content_type=content_type,
            content_encoding=encoding,
            response_cost=value_of(exchange.headers, b"x-litellm-response-cost") or None,
            count_tokens=self._books.count_tokens,
        )
        headers = for_client(exchange.headers, self._attempt.event_id)
        if self._plan.strips and is_event_stream(content_type):
            headers = self._strip(headers, encoding)
        return Head(exchange.status, headers)

    def _strip(self, headers: Pairs, encoding: str) -> Pairs:
        if encoding not in {"", "identity"}:
            # It was asked not to compress; what cannot be read as a stream of events passes as it is.
            self._anomalies.append("not_stripped")
            return headers
        self._stripper = Stripper()
        return [(name, value) for name, value in headers if name != b"content-length"]

    async def _read(self, exchange: Exchange, head: Head) -> None:
        length = value_of(exchange.headers, b"content-length")
        awaited = int(length) if length.isdecimal() and self._stripper is None else None
        if awaited is None or not exchange.whole:
            self._hand_over_head(head)
        # Otherwise the head goes with the last chunk, by one write.
        while (chunk := await exchange.read()) is not None:
            self._observe(chunk)
            self._limit_size(len(chunk))
            if awaited is not None:
                awaited -= len(chunk)
            if awaited == 0:
                # With a length, the client knows the end by its last byte: the settle comes before it.
                self._last += chunk
            else:
                await self._deliver(chunk)
        self._whole = True
        if self._stripper is not None:
            await self._queue_up(self._stripper.finish())

    def _observe(self, chunk: bytes) -> None:
        if self._tap is None:
            return
        self._tap.feed(chunk)
        now = self._clock.monotonic()
        if self._first_token_seconds is None and self._tap.emitted_tokens:
            self._first_token_seconds = now - self._started
        if now - self._noted_at >= PROGRESS_SECONDS:
            self._noted_at = now
            self._books.progress(self._attempt.event_id, self._tap.emitted_tokens)

    async def _deliver(self, chunk: bytes) -> None:
        await self._queue_up(chunk if self._stripper is None else self._stripper.feed(chunk))

    async def _queue_up(self, chunk: bytes) -> None:
        if chunk and not self._left:
            await self._handover.give(chunk)
            if self._doubted:
                self._go_on()

    def _note_leaving(self) -> None:
        """Note whether the client leaves before it was told everything; many close at `[DONE]`."""
        told = self._tap is not None and self._tap.done and self._handover.empty
        self._missed = self._missed or not told

    def _as_left(self) -> Outcome:
        return Outcome.CLIENT_CLOSED if self._missed else Outcome.OK

    def _ended(self, outcome: Outcome) -> Outcome:
        # An upstream that refuses is no completion, however the reading of its refusal ended.
        refused = self._status is not None and not succeeded(self._status)
        return Outcome.UPSTREAM_ERROR if refused else outcome

    def _account(self, outcome: Outcome) -> Awaitable[None]:
        if self._head is None and not self._begun:
            self._hand_over_head(UpstreamUnreachable("The request was ended before an answer came."))
        ending = Ending(
            outcome=outcome,
            status=self._status,
            ttfb_ms=self._ttfb_ms,
            duration_ms=self._ms_so_far(),
            anomalies=self._anomalies_found(),
        )
        observation = None if self._tap is None else self._tap.finish(cut=not self._whole)
        return self._books.settle(conclude(self._attempt, ending, observation))

    def _anomalies_found(self) -> tuple[str, ...]:
        gave_up = self._stripper is not None and self._stripper.gave_up
        return (*self._anomalies, *(["not_stripped"] if gave_up else []))

    async def _hand_over_end(self) -> None:
        if self._head is not None and not self._begun:
            self._hand_over_head(self._head)
        await self._queue_up(self._last)
        self.complete = self._whole

    def _hand_over_head(self, head: Head | MeterError) -> None:
        self._begun = True
        self._handover.begin(head)

    def _stop(self, outcome: Outcome, after_seconds: float) -> None:
        stop_at = self._loop.time() + after_seconds
        if self._stop_at is not None and self._stop_at <= stop_at:
            return
        self._stopped_by = outcome
        self._move_end(stop_at)

    def _go_on(self) -> None:
        """Begin the grace anew, unless something else ends the attempt."""
        if self._stopped_by is Outcome.CLIENT_CLOSED:
            stop_at = self._loop.time() + self._plan.hangup_grace_seconds
            if self._last_moment is None or stop_at < self._last_moment:
                self._move_end(stop_at)

    def _limit_time(self) -> None:
        if self._plan.stream_seconds_max:
            self._last_moment = self._loop.time() + self._plan.stream_seconds_max
            self._stop(Outcome.CUT, self._plan.stream_seconds_max)

    def _limit_size(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0 and self._plan.response_bytes_max:
            self.cut()

    def _move_end(self, stop_at: float) -> None:
        self._stop_at = stop_at
        if self._reading is not None:
            self._reading.reschedule(stop_at)

    def _ms_so_far(self) -> int:
        return round((self._clock.monotonic() - self._started) * 1000)


class Pumps:
    """All attempts under way, so that none is without an owner."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], Pump] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, pump: Pump, *, ended: Callable[[], None]) -> None:
        """Run a pump in a task of its own; `ended` is called at its end, whatever it is."""
        task = asyncio.create_task(pump.run())
        self._running[task] = pump
        task.add_done_callback(self._done)
        task.add_done_callback(lambda _: ended())

    async def drain(self, timeout_seconds: float) -> None:
        """Let the attempts finish; past the time, end what still runs and settle it as interrupted."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        # The door closes a moment after the draining begins, so that attempts may still join.
        while self._running and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tuple(self._running), timeout=left)
        for pump in self._running.values():
            pump.interrupt()
        if self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("an attempt ended by a fault of meter's own", exc_info=fault)


def is_event_stream(content_type: str) -> bool:
    """Say whether a content type is that of server-sent events."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"
