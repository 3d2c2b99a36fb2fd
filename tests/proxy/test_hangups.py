"""Wherever a client hangs up or an upstream breaks off, one event counts at least what was emitted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from meter.core.events import Outcome, UsageEvent, UsageSource
from tests import server, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, Received, Step, event, stream
from tests.server import Meter

EVENTS = 40
USAGE = {"prompt_tokens": 9, "completion_tokens": 45, "total_tokens": 54}
CONTENT = [event({"choices": [{"delta": {"content": "a"}}]}) for _ in range(EVENTS)]
WHOLE = b"".join([*CONTENT, event({"choices": [], "usage": USAGE}), DONE])
OFFSETS = range(len(WHOLE) + 1)
# The blank line behind an event adds nothing to what it says.
USAGE_COMPLETE_AT = WHOLE.index(DONE) - len(b"\n\n")
AT_ONCE = 100


def emitted(offset: int) -> int:
    """Count the content events that are complete within the first bytes of the stream."""
    return sum(len(b"".join(CONTENT[: at + 1])) <= offset for at in range(EVENTS))


def offset_of(request: Received) -> int:
    """Return the offset that a request's user names."""
    return int(request.json()["user"].removeprefix("at-"))


def body(offset: int) -> bytes:
    """Ask for a stream that stops at an offset."""
    return wire.chat(user=f"at-{offset}", stream=True, stream_options={"include_usage": True})


async def read_and_hang_up(meter: Meter, key: str, offset: int) -> None:
    """Read exactly so many bytes of the stream, and hang up."""
    parts = urlsplit(meter.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(wire.request("POST", "/v1/chat/completions", key=key, body=body(offset)))
    await reader.readuntil(b"\r\n\r\n")
    left = offset
    while left:
        size = int(await reader.readuntil(b"\r\n"), 16)
        await reader.readexactly(size + 2)
        left -= size
    writer.close()
    await writer.wait_closed()


async def each_offset(act: Callable[[int], Awaitable[None]]) -> None:
    """Do something at every offset, many at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(offset: int) -> None:
        async with slots:
            await act(offset)

    await asyncio.gather(*(one(offset) for offset in OFFSETS))


def by_offset(events: Sequence[UsageEvent]) -> dict[int, UsageEvent]:
    """Sort events by the offset in their user's name; each has exactly one."""
    found = {int(str(event.end_user).removeprefix("at-")): event for event in events}
    assert len(found) == len(events) == len(OFFSETS)
    return found


def run(meter: Meter, act: Callable[[int], Awaitable[None]], key: str) -> dict[int, UsageEvent]:
    """Act at every offset, and return the events."""
    asyncio.run(each_offset(act))
    return by_offset(meter.events(key, len(OFFSETS)))


def running(folder: Path, upstream: FakeUpstream, grace: float) -> AbstractContextManager[Meter]:
    """Run a meter with some grace."""
    return server.running(folder / "data", upstream_url=upstream.url, hangup_grace_seconds=grace)


@pytest.mark.long
@pytest.mark.parametrize("grace", [0, 5])
def test_a_client_that_hangs_up_and_an_upstream_that_stalls(
    grace: float, upstream: FakeUpstream, tmp_path: Path
) -> None:
    """The upstream is hung up on when the grace is over, and what was emitted until then is charged."""
    never = Gate()

    def answer(request: Received) -> list[Step]:
        offset = offset_of(request)
        return stream(*([WHOLE[:offset]] if offset else []), never)

    upstream.answer(answer)
    with running(tmp_path, upstream, grace) as meter:
        found = run(meter, lambda offset: read_and_hang_up(meter, meter.first_key, offset), meter.first_key)

    for offset, charged in found.items():
        reported = offset >= USAGE_COMPLETE_AT
        # Who has read `[DONE]` has read everything, whether the upstream hangs up or not.
        assert charged.outcome is (Outcome.OK if offset == len(WHOLE) else Outcome.CLIENT_CLOSED)
        assert charged.completion_tokens >= emitted(offset)
        assert charged.prompt_tokens > 0
        assert charged.usage_source is (UsageSource.REPORTED if reported else UsageSource.ESTIMATED)
    assert all(request.hung_up.wait(wire.SECONDS_MAX) for request in upstream.received)
    never.open()


def test_a_client_that_hangs_up_at_the_end(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Programs close at `[DONE]`, before the connection says that this was all: they have missed nothing."""
    never = Gate()
    upstream.answer(lambda request: stream(WHOLE[: offset_of(request)], never))
    with running(tmp_path, upstream, 0) as meter:
        for offset in (len(WHOLE), len(WHOLE) - len(DONE)):
            asyncio.run(read_and_hang_up(meter, meter.first_key, offset))
        found = meter.events(meter.first_key, 2)
    never.open()

    assert [each.outcome for each in found] == [Outcome.OK, Outcome.CLIENT_CLOSED]
    assert {each.usage_source for each in found} == {UsageSource.REPORTED}


@pytest.mark.long
def test_a_client_that_hangs_up_and_an_upstream_that_goes_on(upstream: FakeUpstream, tmp_path: Path) -> None:
    """With grace enough, the usage at the end of the stream is read for the client that has left."""
    gates = {offset: Gate() for offset in OFFSETS}

    def answer(request: Received) -> list[Step]:
        offset = offset_of(request)
        before, after = WHOLE[:offset], WHOLE[offset:]
        return stream(*([before] if before else []), gates[offset], *([after] if after else []))

    async def act(offset: int) -> None:
        await read_and_hang_up(meter, meter.first_key, offset)
        gates[offset].open()

    upstream.answer(answer)
    with running(tmp_path, upstream, 1e6) as meter:
        found = run(meter, act, meter.first_key)

    for charged in found.values():
        assert charged.outcome in {Outcome.CLIENT_CLOSED, Outcome.OK}
        assert charged.usage_source is UsageSource.REPORTED
        assert (charged.prompt_tokens, charged.completion_tokens) == (9, 45)


@pytest.mark.long
@pytest.mark.parametrize("reset", [False, True])
def test_an_upstream_that_cuts(reset: bool, upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """A cut reaches the client as a cut after the same bytes, and what was emitted is charged."""

    def answer(request: Received) -> list[Step]:
        offset = offset_of(request)
        return stream(*([WHOLE[:offset]] if offset else []), Cut(reset=reset))

    async def act(offset: int) -> None:
        answer = await asyncio.to_thread(wire.post, meter.url, key, body(offset))
        assert WHOLE[:offset].startswith(answer.body)
        assert reset or answer.body == WHOLE[:offset]
        assert not answer.whole

    upstream.answer(answer)
    found = run(meter, act, key)

    for offset, charged in found.items():
        assert charged.outcome is Outcome.UPSTREAM_CLOSED
        if not reset:
            assert charged.completion_tokens >= emitted(offset)
            assert charged.prompt_tokens > 0
