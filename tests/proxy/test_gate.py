"""The gate: who is let in, for how long, and what happens while nobody can say."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from meter.core.clock import Clock
from meter.core.errors import InvalidKey, InvalidRequest, MeteringUnavailable, TooManyFailures
from meter.core.guesses import Guesses
from meter.core.keys import Grant, Snapshot
from meter.proxy.gate import GRANT_SECONDS_MAX, Gate, credential

KEY = "mtr_" + "a" * 12 + "_" + "b" * 43
OTHER = "mtr_" + "c" * 12 + "_" + "d" * 43
HEADERS = [(b"authorization", b"Bearer " + KEY.encode())]
GRANT = Grant(key_id="k", key_name="k", team_id="t", team_name="t")
START = datetime(2026, 11, 23, tzinfo=UTC)


class Scene:
    """A gate whose clock and database a test sets."""

    def __init__(self, stale_seconds_max: float = 3600.0, guesses_max: int = 0) -> None:
        self.seconds = 0.0
        self.grants: dict[bytes, Grant] = {KEY.encode(): GRANT}
        self.away = False
        self.asked = 0
        self.gate = Gate(
            find_grant=self._find,
            digest=str.encode,
            clock=Clock(now=lambda: START + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds),
            stale_seconds_max=stale_seconds_max,
            guesses=Guesses(guesses_max),
        )

    async def admit(self, key: str = KEY) -> Grant:
        """Ask for a key to be let in, and wait for the look-ups behind its back."""
        try:
            return await self.gate.admit([(b"authorization", b"Bearer " + key.encode())], b"")
        finally:
            await self.gate.aclose()

    async def _find(self, digest: bytes) -> Grant | None:
        self.asked += 1
        if self.away:
            raise MeteringUnavailable("away")
        return self.grants.get(digest)


def play(act: Callable[[Scene], Awaitable[None]], scene: Scene | None = None) -> None:
    """Play a scene."""

    async def run() -> None:
        await act(scene or Scene())

    asyncio.run(run())


def test_many_requests_of_a_key_ask_once() -> None:
    """A key is looked up once for all requests within two seconds."""

    async def act(scene: Scene) -> None:
        for _ in range(50):
            assert await scene.admit() is GRANT
        assert scene.asked == 1

    play(act)


def test_a_revocation_works_within_the_bound() -> None:
    """A key that was revoked is refused at the latest when its grant is five seconds old."""

    async def act(scene: Scene) -> None:
        await scene.admit()
        scene.grants.clear()
        scene.seconds = GRANT_SECONDS_MAX
        with pytest.raises(InvalidKey):
            await scene.admit()

    play(act)


def test_a_busy_key_never_waits_for_the_database() -> None:
    """A grant about to get too old is looked up behind the back of the request that uses it."""

    async def act(scene: Scene) -> None:
        await scene.admit()
        scene.seconds = 3.0
        await scene.admit()
        assert scene.asked == 2
        scene.seconds = 6.0
        await scene.admit()
        assert scene.asked == 3

    play(act)


def test_wrong_keys_are_remembered_too() -> None:
    """A client that repeats a wrong key does not ask the database each time."""

    async def act(scene: Scene) -> None:
        for _ in range(10):
            with pytest.raises(InvalidKey):
                await scene.admit(OTHER)
        assert scene.asked == 1

    play(act)


def test_known_keys_go_on_while_the_database_is_away() -> None:
    """A key that was let in before is let in during an outage, and an unknown one gets 503, not 401."""

    async def act(scene: Scene) -> None:
        await scene.admit()
        scene.away = True
        scene.seconds = 600.0
        assert await scene.admit() is GRANT
        assert scene.gate.database_away
        with pytest.raises(MeteringUnavailable):
            await scene.admit(OTHER)

    play(act)


def test_an_outage_ends_by_itself_and_revocations_are_honoured() -> None:
    """When the database is back, what was revoked meanwhile is refused."""

    async def act(scene: Scene) -> None:
        await scene.admit()
        scene.away = True
        scene.seconds = 60.0
        await scene.admit()
        scene.away = False
        scene.grants.clear()
        scene.seconds = 61.0
        await scene.admit()
        assert not scene.gate.database_away
        with pytest.raises(InvalidKey):
            await scene.admit()

    play(act)


def test_a_snapshot_carries_a_start_without_a_database() -> None:
    """Keys of the snapshot are let in by a process that never reached the database."""

    async def act(scene: Scene) -> None:
        scene.away = True
        known = [scene.gate.has_snapshot]
        scene.gate.take_snapshot(Snapshot(START, {KEY.encode(): GRANT}))
        known.append(scene.gate.has_snapshot)
        assert known == [False, True]
        assert await scene.admit() is GRANT
        with pytest.raises(MeteringUnavailable):
            await scene.admit(OTHER)

    play(act)


def test_what_is_known_from_before_grows_too_old() -> None:
    """Past the bound, an outage stops known keys too, with 503."""

    async def act(scene: Scene) -> None:
        scene.gate.take_snapshot(Snapshot(START, {KEY.encode(): GRANT}))
        await scene.admit()
        scene.away = True
        scene.seconds = 3601.0
        with pytest.raises(MeteringUnavailable):
            await scene.admit()

    play(act)


def test_a_database_that_hangs_makes_nobody_wait() -> None:
    """A look-up that gets no answer is given up on, and goes on without the request."""

    async def act(scene: Scene) -> None:
        scene.gate.take_snapshot(Snapshot(START, {KEY.encode(): GRANT}))
        answer = asyncio.Event()

        async def hang(_digest: bytes) -> Grant | None:
            await answer.wait()
            return GRANT

        gate = Gate(
            find_grant=hang,
            digest=str.encode,
            clock=Clock(now=lambda: START, monotonic=lambda: 0.0),
            stale_seconds_max=60.0,
        )
        gate.take_snapshot(Snapshot(START, {KEY.encode(): GRANT}))
        assert await gate.admit(HEADERS, b"") is GRANT
        with pytest.raises(MeteringUnavailable):
            await gate.admit([(b"authorization", b"Bearer " + OTHER.encode())], b"")
        answer.set()
        await gate.aclose()

    play(act)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], ""),
        ([(b"authorization", b"Bearer x")], "x"),
        ([(b"authorization", b"bearer  x ")], "x"),
        ([(b"authorization", b"Basic x")], ""),
        ([(b"authorization", b"x")], ""),
        ([(b"authorization", b"Bearer x"), (b"authorization", b"Bearer x")], "x"),
        ([(b"authorization", b"Bearer x"), (b"api-key", b"x")], "x"),
        ([(b"api-key", b"x")], ""),
    ],
)
def test_the_credential_of_a_request(headers: list[tuple[bytes, bytes]], token: str) -> None:
    """Only a bearer token counts, and it may be repeated."""
    assert credential(headers, b"") == token


@pytest.mark.parametrize("query", [b"key=x", b"a=1&API_KEY=x", b"access_token=y&b="])
def test_a_key_in_the_query_is_refused(query: bytes) -> None:
    """A parameter that carries a key is refused, whatever stands beside it."""
    with pytest.raises(InvalidRequest):
        credential(HEADERS, query)


def test_guesses_beyond_the_limit_are_not_looked_up() -> None:
    """The database hears of no more guesses than there may be, and keys that are known pass all the same."""

    async def act(scene: Scene) -> None:
        await scene.admit()
        scene.gate.take_snapshot(Snapshot(START, {OTHER.encode(): GRANT}))
        scene.grants[OTHER.encode()] = GRANT
        for number in range(100):
            with pytest.raises((InvalidKey, TooManyFailures)):
                await scene.admit(f"{KEY[:-3]}{number:03}")

        assert scene.asked == 1 + 5
        assert await scene.admit() is GRANT
        assert await scene.admit(OTHER) is GRANT
        with pytest.raises(TooManyFailures):
            await scene.admit("not well formed")

    play(act, Scene(guesses_max=5))
