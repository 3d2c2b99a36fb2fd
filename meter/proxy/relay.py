"""The relay: the ASGI callable of the data listener.

    gate -> body -> admission -> pump -> client

It is plain ASGI rather than a framework's handler: a response has to pass as it is, header by header and
chunk by chunk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import httpx

from meter.core.attempts import Attempt
from meter.core.clock import Clock
from meter.core.errors import MeterError, NotFound, Overloaded, RequestTooLarge, UnsupportedEncoding
from meter.core.keys import Grant
from meter.core.request import RequestFacts, read_request
from meter.core.splice import include_usage
from meter.core.stream_usage import ENSURE, mode_for
from meter.proxy.account import Account, Accounting
from meter.proxy.admission import Admission, Admitted, Candidate
from meter.proxy.answers import Send, respond
from meter.proxy.connections import Local
from meter.proxy.cycle import Cycle
from meter.proxy.gate import Gate
from meter.proxy.handover import Handover
from meter.proxy.headers import Pairs, for_client, value_of
from meter.proxy.load import LIGHT_BYTES_MAX, Load
from meter.proxy.opening import CONTENT_LENGTH, Opening
from meter.proxy.order import Errand, Order
from meter.proxy.outlet import Outlet
from meter.proxy.protocol import client_of
from meter.proxy.pump import Bounds, Plan, Pump, Pumps
from meter.proxy.routes import KEY, METERED, Match, match
from meter.proxy.upstream import Upstream, choose

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
    stream_usage: str
    answers: Bounds


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
        handover = Handover()
        try:
            headers: Pairs = scope["headers"]
            opening = Opening([pair for pair in headers if pair[0] != CONTENT_LENGTH], None)
            body = await read_body(receive, headers, self.limits.body_bytes_max, arrival.take)
            order = Order(found, grant, opening, scope["query_string"], arrival)
            pump = await self._attempt(order, body, handover)
        except BaseException:
            arrival.release()
            raise
        # What was read of the request is forgotten by now: a stream may last for hours.
        del order, opening, body
        self.pumps.start(self._carry_out(pump))
        client = client_of(scope)
        client.watch(closing=pump.doubt, leaving=pump.abandon)
        try:
            await _hand_on(handover, pump, send)
        finally:
            client.watch(closing=None, leaving=None)

    async def _carry_out(self, pump: Pump) -> None:
        await pump.run(self.pumps.own(pump))

    # What the connection asks of it where no ASGI stands between.

    def opening(self, headers: Pairs) -> Opening | None:
        """Read the head of a request; `None` where there is more to be said about it."""
        try:
            opening = Opening(headers, self.gate.digest_of(headers))
        except MeterError:
            return None
        return opening if opening.ordinary and opening.digest is not None else None

    def accept(self, url: bytes, opening: Opening, body_bytes: int) -> Order | None:
        """Take on a request whose body is still to come; `None` where it is no ordinary one."""
        found = METERED.get(url)
        grant = None if opening.digest is None else self.gate.at_hand(opening.digest)
        if found is None or grant is None or body_bytes > self.limits.body_bytes_max or self.stopping():
            return None
        try:
            arrival = self.load.arrive(body_bytes)
        except Overloaded:
            return None
        return Order(found, grant, opening, b"", arrival)

    def answer(self, order: Order, body: bytes, client: Cycle) -> None:
        """Answer a request that was taken on."""
        self.pumps.start(self._answer(order, body, client))

    async def _answer(self, order: Order, body: bytes, client: Cycle) -> None:
        try:
            pump = await self._attempt(order, body, client)
            del body
            client.watch(closing=pump.doubt, leaving=pump.abandon)
            await pump.run(self.pumps.own(pump))
            # Or both would know each other until the collector comes, with all that they have read.
            client.watch(closing=None, leaving=None)
        except MeterError as refusal:
            order.arrival.release()
            self.accounting.refused(refusal, order.grant)
            client.refuse(refusal)
        except BaseException:
            order.arrival.release()
            client.fail()
            raise

    async def _attempt(self, order: Order, body: bytes, outlet: Outlet) -> Pump:
        """Admit a request and note its attempt; from then on its pump owns what was taken for it."""
        asked_at = self.clock.monotonic()
        arrival, grant = order.arrival, order.grant
        if len(body) > LIGHT_BYTES_MAX:
            arrival.decode(body)
        facts = read_request(body)
        upstream = self._upstream(facts.model)
        asks = facts.stream and self._mode(grant, upstream) == ENSURE
        sent = include_usage(body, facts.document) if asks else body
        errand = Errand(upstream, order, sent, identity=sent is not body)
        candidate = Candidate(self._planned(order, upstream, facts), grant, facts)
        admitted = self.admission.enter(candidate)
        if not isinstance(admitted, Admitted):
            admitted = await admitted
        admitted.add(arrival)
        account = Account(self.accounting, admitted, grant)
        try:
            account.begin()
            plan = Plan(errand, sent is not body, asked_at)
            return Pump(account, plan, outlet, bounds=self.limits.answers, clock=self.clock)
        except BaseException:
            account.close()
            raise

    async def _pass(self, found: Match, scope: Scope, send: Send) -> None:
        upstream = self.upstreams[-1] if found.model is None else self._upstream(found.model)
        headers = [pair for pair in scope["headers"] if pair[0] != CONTENT_LENGTH]
        exchange = await upstream.open(found.upstream_path, query=scope["query_string"], headers=headers)
        try:
            shown = for_client(exchange.headers, self.accounting.new_id())
            await send({"type": "http.response.start", "status": exchange.status, "headers": shown})
            while (chunk := await exchange.read()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.TransportError:
            # What is cut upstream is cut here: returning without an end closes the connection.
            return
        finally:
            await exchange.aclose()

    def _planned(self, order: Order, upstream: Upstream, facts: RequestFacts) -> Attempt:
        return Attempt(
            event_id=self.accounting.new_id(),
            started_at=self.clock.now(),
            team_id=order.grant.team_id,
            key_id=order.grant.key_id,
            route=order.found.route.name,
            upstream=upstream.name,
            model=facts.model,
            stream=facts.stream,
            prompt_estimate=self.accounting.estimate_prompt(facts.document),
            end_user=facts.end_user,
            tags=order.opening.tags,
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


async def _hand_on(handover: Handover, pump: Pump, send: Send) -> None:
    try:
        head = await handover.head()
        if isinstance(head, MeterError):
            await respond(send, head.status, head.body(), head.headers)
            return
        await send({"type": "http.response.start", "status": head.status, "headers": head.headers})
        while (chunk := await handover.take()) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if handover.whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Otherwise the response was cut, and returning without an end closes the connection visibly.
    finally:
        pump.abandon()


async def _send_last(send: Send, message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (b"connection", b"close")]
    await send(message)
