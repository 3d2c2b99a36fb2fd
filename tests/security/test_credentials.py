"""Keys: told apart by all of their bits, cheap to check, and as slow to refuse whatever is wrong."""

import asyncio
import contextlib
import hashlib
import os
import random
import stat
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meter.core.clock import Clock
from meter.core.errors import InvalidKey
from meter.core.keys import Grant, digest, mint
from meter.proxy.gate import Gate
from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import Meter

PEPPER = b"p" * 32
CLOCK = Clock(now=lambda: datetime(2026, 11, 25, tzinfo=UTC), monotonic=lambda: 0.0)
# A slow hash, made for passwords, takes a thousand times as long.
CPU_US_MAX = 200.0
TRIES = 50
TIMED_KEYS = 5_000
TIMED = pytest.mark.skipif(
    "METER_TEST_TIMING" not in os.environ, reason="times are compared by `make security` alone"
)


def made(seed: int) -> str:
    """Make a key of seeded randomness."""
    return mint(random.Random(seed).choice)[1]


def gate(*keys: str) -> Gate:
    """Make a gate that knows these keys, each by a grant of its own."""
    grants = {
        digest(key, PEPPER): Grant(key_id=key[-8:], key_name=key, team_id="t", team_name="t") for key in keys
    }

    async def find(found: bytes) -> Grant | None:
        return grants.get(found)

    return Gate(find_grant=find, digest=lambda key: digest(key, PEPPER), clock=CLOCK)


def admit(door: Gate, key: str) -> str:
    """Ask for a key, and return whose it is."""

    async def ask() -> str:
        return (await door.admit([(b"authorization", f"Bearer {key}".encode())], b"")).key_name

    return asyncio.run(ask())


def test_keys_that_begin_alike_are_not_alike() -> None:
    """A key is remembered by a digest of all of it: those that differ at the end have their own grants."""
    first = made(1)
    others = [
        first[:-1] + ("A" if first[-1] != "A" else "B"),
        first[:-2] + "zz",
        first[:40] + first[40:][::-1],
    ]
    door = gate(first, *others)

    assert [admit(door, key) for key in (first, *others, first)] == [first, *others, first]
    with pytest.raises(InvalidKey):
        admit(door, first[:-1])
    with pytest.raises(InvalidKey):
        admit(door, first[:-3] + "aaa")


def test_a_check_costs_microseconds() -> None:
    """A key has 256 bits, so that a fast digest is enough, and wrong ones keep no server busy."""
    door = gate(*(made(seed) for seed in range(100)))
    headers = [(b"authorization", f"Bearer {made(7)}".encode())]

    async def act() -> float:
        await door.admit(headers, b"")
        times = []
        for _ in range(TRIES):
            began = time.process_time()
            for _ in range(100):
                await door.admit(headers, b"")
            times.append((time.process_time() - began) * 10_000)
        return min(times)

    assert asyncio.run(act()) < CPU_US_MAX


def test_no_file_of_a_server_has_a_secret(upstream: FakeUpstream, meter: Meter) -> None:
    """Whoever gets the whole data directory gets no key, and nothing to try keys on without the pepper."""
    upstream.answer([response(b'{"choices":[]}')])
    key = meter.new_key(name="to be looked for")
    with meter.control as control:
        token = control.post("/api/v1/tokens", json={"role": "viewer"}).json()["token"]
    wire.post(meter.url, key, wire.chat(messages=[{"role": "user", "content": "canary of a prompt"}]))
    meter.event(key)

    files = [path for path in meter.data_dir.rglob("*") if path.is_file()]
    held = {path: path.read_bytes() for path in files}

    looked_for = [b"canary of a prompt"]
    for secret in (key, token, key.split("_")[2], token.split("_")[2]):
        hashed = hashlib.sha256(secret.encode())
        looked_for += [secret.encode(), hashed.digest(), hashed.hexdigest().encode()]
    assert [path for path, raw in held.items() for each in looked_for if each in raw] == []
    assert any(key.split("_")[1].encode() in raw for raw in held.values())


def test_files_of_a_server_are_its_owners_alone(meter: Meter) -> None:
    """Another user of the machine reads nothing of a data directory, whatever the umask was."""
    places = [meter.data_dir, *meter.data_dir.rglob("*")]

    secrets = [meter.data_dir / "admin-token", meter.data_dir / "pepper"]
    journals = [path for path in (meter.data_dir / "journal").rglob("*") if path.is_file()]

    assert journals
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*secrets, *journals)} == {0o600}
    # Whatever else there is lies behind this door.
    assert stat.S_IMODE(meter.data_dir.stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in places} == {os.getuid()}


def test_no_secret_is_in_the_command_line(meter: Meter) -> None:
    """Other users see the arguments of every process; there is no option for a secret."""
    for path in Path(f"/proc/{meter.process.pid}/task").glob("*/children"):
        for pid in [str(meter.process.pid), *path.read_text().split()]:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert meter.admin_token.encode() not in arguments
            assert meter.first_key.encode() not in arguments


@TIMED
def test_how_long_it_takes_tells_nothing() -> None:
    """A wrong key that shares all but its end with a good one takes as long as any other wrong one."""
    good = made(1)
    door = gate(good)
    near = [good[:48] + made(seed)[48:] for seed in range(10, 10 + TIMED_KEYS)]
    far = [made(seed) for seed in range(10 + TIMED_KEYS, 10 + 2 * TIMED_KEYS)]
    times: dict[bool, list[int]] = {True: [], False: []}

    async def one(key: str, *, is_near: bool) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        began = time.perf_counter_ns()
        with contextlib.suppress(InvalidKey):
            await door.admit(headers, b"")
        times[is_near].append(time.perf_counter_ns() - began)

    async def act() -> None:
        # In turns, so that what else the machine does is done to both; each once, so that it is looked up.
        for first, second in zip(near, far, strict=True):
            await one(first, is_near=True)
            await one(second, is_near=False)

    asyncio.run(act())

    assert abs(middle(times[True]) - middle(times[False])) < 0.1 * middle(times[False])


def middle(times: list[int]) -> float:
    """Return the mean of the quicker half."""
    quick = sorted(times)[: len(times) // 2]
    return statistics.fmean(quick)
