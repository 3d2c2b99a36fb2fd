"""The relay: the ASGI callable of the data listener.

    gate -> body -> admission -> pump -> client

It is plain ASGI rather than a framework's handler: a response has to pass as it is, header by header and
chunk by chunk.
"""

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
)
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from meter.core.attempts import Attempt
from meter.core.clock import Clock
from meter.core.errors import (
    MeterError,
    NotFound,
    RequestTooLarge,
    UnsupportedEncoding,
)
from meter.core.events import UsageEvent
from meter.core.keys import Grant
from meter.core.request import RequestFacts, read_request, read_tags
from meter.core.splice import include_usage
from meter.core.stream_usage import ENSURE, mode_for
from meter.proxy.admission import Admission, Admitted, Candidate
from meter.proxy.answers import Send, respond
from meter.proxy.connections import Local
from meter.proxy.gate import Gate
from meter.proxy.headers import Pairs, for_client, value_of
from meter.proxy.load import Arrival, Load
from meter.proxy.protocol import client_of
from meter.proxy.pump import Books, CountTokens, Plan, Pump, Pumps
from meter.proxy.routes import KEY, Match, match
from meter.proxy.upstream import Upstream, UpstreamClosedError, UpstreamStalledError, choose

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# How much of a body that is too large is taken in before the answer, and for how long.
DISCARDED_FACTOR_MAX = 10
DISCARD_SECONDS_MAX = 10.0
# Where a request's grant is found once it has one; the scope lives as long as the request.
_GRANT = "meter.grant"


class Limits(NamedTuple):
    """The settings that shape a request's way."""

    body_bytes_max: int
    hangup_grace_seconds: float
    stream_usage: str
    stream_seconds_max: float
    """0 is no limit, here and below."""
    response_bytes_max: int


class Accounting(NamedTuple):
    """What the relay needs of those who keep the books."""

    new_id: Callable[[], str]
    begin: Callable[[Attempt], None]
    """Take note of an attempt before it begins; raises `MeteringUnavailable`."""
    progress: Callable[[str, int], None]
    rate: Callable[[UsageEvent], UsageEvent]
    """Put the cost to what was used."""
    settle: Callable[[UsageEvent, Grant], Awaitable[None]]
    """Write a rated event at once; what it returns is done when the event is safe."""
    timed: Callable[[float, float | None], None]
    """Count the seconds that meter added to a request, and those of a stream to its first token."""
    refused: Callable[[MeterError, Grant | None], None]
    """Count a refusal, with whose request it was where that was known."""
    count_tokens: CountTokens
    estimate_prompt: Callable[[dict[str, Any]], int]


class ClientLeftError(Exception):
    """The client went away before its request was complete."""


@dataclass(frozen=True, kw_only=True)
class Relay:
    """Forwards requests and has every metered one accounted for."""

    gate: Gate
    load: Load
    admission: Admission
    show_key: Callable[[Grant], Awaitable[bytes]]
    """What a key may do, as JSON for its holder."""
    upstreams: tuple[Upstream, ...]
    pumps: Pumps
    accounting: Accounting
    limits: Limits
    clock: Clock
    local: Mapping[str, Local]
    stopping: Callable[[], bool]
    """Whether clients should look for another connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal has OpenAI's shape."""
        if scope["type"] != "http":
            raise RuntimeError(f"the data listener speaks HTTP only, not {scope['type']}")
        try:
            await self._route(scope, receive, self._closing(send))
        except MeterError as refusal:
            self.accounting.refused(refusal, scope.get(_GRANT))
            await respond(send, refusal.status, refusal.body(), refusal.headers)
        except ClientLeftError:
            return

    def _closing(self, send: Send) -> Send:
        """Have responses close their connection while meter is stopping, so that none is idle at the end."""
        return partial(_send_last, send) if self.stopping() else send

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1")
        local = self.local.get(path)
        if local is not None and scope["method"] == "GET":
            await respond(send, *local())
            return
        found = match(scope["method"], path)
        grant = scope[_GRANT] = await self.gate.admit(
            scope["headers"], scope["query_string"], scope["client"]
        )
        if found.route.metered:
            await self._meter(found, grant, scope, receive, send)
        elif found.route is KEY:
            await respond(send, 200, await self.show_key(grant))
        else:
            await self._pass(found, scope, send)

    async def _meter(self, found: Match, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = self.load.arrive()
        try:
            admitted, plan = await self._admit(found, grant, scope, receive, arrival)
        except BaseException:
            arrival.release()
            raise
        admitted.add(arrival)
        # What was read of the request is forgotten by now: a stream may last for hours.
        pump = self._begin(admitted, plan, grant)
        client_of(scope).watch(closing=pump.doubt, leaving=pump.abandon)
        await _hand_on(pump, send)

    async def _admit(
        self, found: Match, grant: Grant, scope: Scope, receive: Receive, arrival: Arrival
    ) -> tuple[Admitted, Plan]:
        headers: Pairs = scope["headers"]
        tags = read_tags(value_of(headers, b"x-meter-tags"))
        body = await read_body(receive, headers, self.limits.body_bytes_max, arrival.take)
        asked_at = self.clock.monotonic()
        arrival.decode(body)
        facts = read_request(body)
        upstream = self._upstream(facts.model)
        attempt = self._attempt(found, grant, upstream, facts, tags)
        asks = facts.stream and self._mode(grant, upstream) == ENSURE
        sent = include_usage(body) if asks else body
        spliced = sent is not body
        send_it = partial(
            upstream.open,
            "POST",
            found.upstream_path,
            query=scope["query_string"],
            headers=headers,
            body=sent,
            identity=spliced,
        )
        plan = Plan(
            open=arrival.forgetting(send_it),
            strips=spliced,
            hangup_grace_seconds=self.limits.hangup_grace_seconds,
            asked_at=asked_at,
            stream_seconds_max=self.limits.stream_seconds_max,
            response_bytes_max=self.limits.response_bytes_max,
        )
        return await self.admission.admit(Candidate(attempt, grant, facts)), plan

    def _begin(self, admitted: Admitted, plan: Plan, grant: Grant) -> Pump:
        """Note the attempt and start it; from here on its pump owns what was taken for it."""

        def settle(event: UsageEvent) -> Awaitable[None]:
            booked = admitted.booked(self.accounting.rate(event))
            safe = self.accounting.settle(booked, grant)
            admitted.settled(booked)
            return safe

        def progress(event_id: str, emitted_tokens: int) -> None:
            self.accounting.progress(event_id, emitted_tokens)
            admitted.progressed(emitted_tokens, pump.cut)

        books = Books(
            progress=progress,
            settle=settle,
            count_tokens=self.accounting.count_tokens,
            timed=self.accounting.timed,
        )
        try:
            self.accounting.begin(admitted.attempt)
            pump = Pump(admitted.attempt, plan, books=books, clock=self.clock)
            self.pumps.start(pump, ended=admitted.release)
        except BaseException:
            admitted.release()
            raise
        return pump

    async def _pass(self, found: Match, scope: Scope, send: Send) -> None:
        upstream = self.upstreams[-1] if found.model is None else self._upstream(found.model)
        exchange = await upstream.open(
            "GET", found.upstream_path, query=scope["query_string"], headers=scope["headers"]
        )
        try:
            headers = for_client(exchange.headers, self.accounting.new_id())
            await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
            while (chunk := await exchange.read()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (UpstreamClosedError, UpstreamStalledError):
            # What is cut upstream is cut here: returning without an end closes the connection.
            return
        finally:
            await exchange.aclose()

    def _attempt(
        self, found: Match, grant: Grant, upstream: Upstream, facts: RequestFacts, tags: tuple[str, ...]
    ) -> Attempt:
        return Attempt(
            event_id=self.accounting.new_id(),
            started_at=self.clock.now(),
            team_id=grant.team_id,
            key_id=grant.key_id,
            route=found.route.name,
            upstream=upstream.name,
            model=facts.model,
            stream=facts.stream,
            prompt_estimate=self.accounting.estimate_prompt(facts.document),
            end_user=facts.end_user,
            tags=tags,
        )

    def _upstream(self, model: str) -> Upstream:
        upstream = choose(self.upstreams, model)
        if upstream is None:
            raise NotFound(f"No upstream serves the model {model!r}.", param="model")
        return upstream

    def _mode(self, grant: Grant, upstream: Upstream) -> str:
        configured = (grant.stream_usage, upstream.stream_usage)
        return mode_for(configured, default=self.limits.stream_usage, host=upstream.host)


async def read_body(
    receive: Receive, headers: Pairs, bytes_max: int, take: Callable[[int], None] = lambda _: None
) -> bytes:
    """Read a request's body; raises `RequestTooLarge` as soon as it is, and `ClientLeftError`.

    `take` is told of each piece, and may refuse it.
    """
    if value_of(headers, b"content-encoding").lower() not in {"", "identity"}:
        raise UnsupportedEncoding("Send the body without content-encoding; meter reads it uncompressed.")
    announced = value_of(headers, b"content-length")
    too_large = announced.isdecimal() and int(announced) > bytes_max
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        chunk, more = await _piece(receive)
        size += len(chunk)
        if too_large or size > bytes_max:
            await _discard(receive, more, bytes_max * DISCARDED_FACTOR_MAX)
            raise RequestTooLarge(f"The body is larger than {bytes_max} bytes (the setting body_bytes_max).")
        try:
            take(len(chunk))
        except MeterError:
            chunks.clear()
            await _discard(receive, more, bytes_max)
            raise
        chunks.append(chunk)
    return b"".join(chunks)


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    """Return the next piece of a body, and whether there are more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeftError
    return message.get("body", b""), message.get("more_body", False)


async def _discard(receive: Receive, more: bool, bytes_max: int) -> None:  # noqa: FBT001 (as `_piece` says it)
    """Take in the rest of a body: whoever still sends when the connection closes never sees the answer."""
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS_MAX):
            while more and discarded <= bytes_max:
                chunk, more = await _piece(receive)
                discarded += len(chunk)


async def _hand_on(pump: Pump, send: Send) -> None:
    try:
        head = await pump.head()
        await send({"type": "http.response.start", "status": head.status, "headers": head.headers})
        while (chunk := await pump.take()) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if pump.complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Otherwise the response was cut, and returning without an end closes the connection visibly.
    finally:
        pump.abandon()


async def _send_last(send: Send, message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (b"connection", b"close")]
    await send(message)
