"""Concurrency: places are taken and given back, whatever becomes of the attempt."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from meter.core.errors import RateLimitExceeded
from meter.core.keys import Grant
from meter.core.limits import Defaults, Limits
from meter.proxy.concurrency import Concurrency
from tests import server, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, event, response, stream
from tests.proxy.test_admission import GRANT, candidate
from tests.server import Meter, until

OK = response(b'{"choices":[]}')
CONTENT = event({"choices": [{"delta": {"content": "a"}}]})


def of(key_id: str, limits: Limits, team_limits: Limits) -> Grant:
    """Make a grant with limits."""
    return msgspec.structs.replace(GRANT, key_id=key_id, limits=limits, team_limits=team_limits)


def test_a_key_has_so_many_places() -> None:
    """One more is refused, with a message that names the limit, until one has been given back."""
    concurrency = Concurrency(Defaults(Limits(concurrency=2), Limits()))

    async def run() -> None:
        first = concurrency.admit(candidate(GRANT))
        concurrency.admit(candidate(GRANT))
        with pytest.raises(RateLimitExceeded, match="This key may have 2 requests") as refused:
            concurrency.admit(candidate(GRANT))
        assert ("retry-after", "1") in refused.value.headers
        first.release()
        concurrency.admit(candidate(GRANT))

    asyncio.run(run())

    assert concurrency.running("k") == 2


def test_the_keys_of_a_team_share_its_places() -> None:
    """A refusal by the team takes no place of the key, and nothing is left of what has ended."""
    concurrency = Concurrency(Defaults(Limits(), Limits()))
    one, other = (of(name, Limits(concurrency=0), Limits(concurrency=1)) for name in ("a", "b"))

    async def run() -> None:
        held = concurrency.admit(candidate(one))
        with pytest.raises(RateLimitExceeded, match="This team may have 1 requests"):
            concurrency.admit(candidate(other))
        assert concurrency.running("b") == 0
        held.release()
        (concurrency.admit(candidate(other))).release()

    asyncio.run(run())

    assert [concurrency.running(name) for name in ("a", "b", "t")] == [0, 0, 0]


@pytest.fixture(scope="module")
def hasty(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter that waits for nobody, and whose keys have one place each."""
    data_dir = tmp_path_factory.mktemp("hasty") / "data"
    settings = {"hangup_grace_seconds": 0, "headers_timeout_seconds": 0.5, "key_concurrency": 1}
    with server.running(data_dir, upstream_url=upstream_server.url, **settings) as running:
        yield running


def view(meter: Meter, key: str) -> Any:
    """Return the key holder's own view."""
    return wire.exchange(meter.url, wire.request("GET", "/v1/meter/key", key=key)).json()


def hang_up(meter: Meter, key: str, mark: bytes | None) -> None:
    """Ask for a stream, read until a mark, or nothing, and leave."""
    with wire.connected(meter.url) as connection:
        body = wire.chat(stream=True, stream_options={"include_usage": True})
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        if mark is None:
            until(lambda: view(meter, key)["concurrency"]["running"], "the attempt")
        else:
            connection.read_until(mark)


FAULTS: dict[str, Callable[[FakeUpstream, Meter, str], object]] = {}


def fault(play: Callable[[FakeUpstream, Meter, str], object]) -> Callable[[FakeUpstream, Meter, str], object]:
    """Add a way for an attempt to end."""
    FAULTS[play.__name__] = play
    return play


@fault
def answered(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End as it should."""
    upstream.answer([OK])
    assert wire.post(meter.url, key, wire.chat()).status == 200


@fault
def refused_upstream(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End with the upstream's error."""
    upstream.answer([response(b"{}", status="500 Internal Server Error")])
    assert wire.post(meter.url, key, wire.chat()).status == 500


@fault
def reset_before_the_headers(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End without an answer."""
    upstream.answer([Cut(reset=True)])
    assert wire.post(meter.url, key, wire.chat()).status == 502


@fault
def cut_within(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End in the middle of a stream."""
    upstream.answer(stream(CONTENT, Cut()))
    assert not wire.post(meter.url, key, wire.chat(stream=True)).whole


@fault
def never_answered(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End by a time-out."""
    gate = Gate()
    upstream.answer([gate])
    assert wire.post(meter.url, key, wire.chat()).status == 504
    gate.open()


@fault
def left_before_the_headers(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End by a client that leaves while the upstream thinks."""
    gate = Gate()
    upstream.answer([gate])
    hang_up(meter, key, None)
    until(lambda: not view(meter, key)["concurrency"]["running"], "the place")
    gate.open()


@fault
def left_within(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """End by a client that leaves in the middle of a stream."""
    gate = Gate()
    upstream.answer(stream(CONTENT, gate))
    hang_up(meter, key, b"data: ")
    until(lambda: not view(meter, key)["concurrency"]["running"], "the place")
    gate.open()


@pytest.mark.parametrize("name", FAULTS)
def test_however_an_attempt_ends_its_place_is_free(name: str, upstream: FakeUpstream, hasty: Meter) -> None:
    """The key's one place is taken again and again, and each time given back."""
    key = hasty.new_key()

    for _ in range(3):
        FAULTS[name](upstream, hasty, key)

    assert view(hasty, key)["concurrency"] == {"limit": 1, "running": 0, "owner": "key"}
    assert len(hasty.events(key, 3)) == 3


def test_a_running_request_holds_its_place(upstream: FakeUpstream, meter: Meter) -> None:
    """The second of two at once gets 429, neither an upstream attempt nor an event, and then passes."""
    gate = Gate()
    upstream.answer(stream(CONTENT, gate, DONE), [OK])
    key = meter.new_key()
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"concurrency": 1})
    with wire.connected(meter.url) as connection:
        body = wire.chat(stream=True)
        connection.send(wire.request("POST", "/v1/chat/completions", key=key, body=body))
        connection.read_until(b"data: ")

        refused = wire.post(meter.url, key, wire.chat())
        gate.open()
        assert wire.parse(connection.read_to_end()).whole

    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.header("retry-after") == "1"
    assert wire.post(meter.url, key, wire.chat()).status == 200
    assert len(upstream.received) == len(meter.events(key, 2)) == 2


def test_one_after_another_is_never_two_at_once(upstream: FakeUpstream, meter: Meter) -> None:
    """Whoever asks again as soon as an answer has come, on one connection, is never refused."""
    key = meter.new_key()
    upstream.answer([OK])
    with meter.control as control:
        control.patch(f"/api/v1/keys/{key.split('_')[1]}", json={"concurrency": 1})
    with httpx.Client(
        base_url=meter.url, headers={"authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        statuses = {client.post("/chat/completions", content=wire.chat()).status_code for _ in range(100)}

    assert statuses == {200}


def test_what_could_not_be_noted_holds_nothing(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A journal without room refuses the attempt, which then counts in no rate and holds no place."""
    data_dir = tmp_path_factory.mktemp("full") / "data"
    upstream.answer([OK])
    settings = {"journal_bytes_max": 1, "key_rpm": 50, "key_concurrency": 1}
    with server.running(data_dir, upstream_url=upstream.url, **settings) as meter:
        key = meter.first_key
        statuses = [wire.post(meter.url, key, wire.chat()).status for _ in range(8)]
        seen = view(meter, key)

    # An empty journal takes what it has room for.
    assert set(statuses) <= {200, 503}
    assert 503 in statuses
    assert seen["concurrency"]["running"] == 0
    assert seen["rates"]["requests"]["remaining"] == 50 - statuses.count(200) == 50 - len(upstream.received)
