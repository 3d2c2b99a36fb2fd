"""Children are started, replaced and taken down by a supervisor: first small ones, then meter's own."""

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meter.core.events import Outcome, UsageEvent
from meter.store.database import Database
from tests import fake_upstream, server, services
from tests.fake_upstream import FakeUpstream
from tests.server import Meter

pytestmark = pytest.mark.long
PATIENCE_SECONDS = 1.0
WORKERS = 4
PEPPER = "a-pepper-for-tests-that-is-long-enough"
ADMIN_TOKEN = "an-admin-token-for-tests-that-is-long-enough"

# Runs children that answer every connection with their name and process; the last descriptor is kept open by
# all of them, so that its other end tells when nobody is left.
SUPERVISE = """
import json, logging, os, socket, sys
from meter.supervisor import Program, Supervisor

given = json.loads(sys.argv[1])
logging.basicConfig(level=logging.INFO)
listener = socket.socket(fileno=given["listener"])
programs = [
    Program(
        name=name,
        command=(sys.executable, "-c", given["child"]) if behaviour != "absent" else ("/nowhere/program",),
        orders=json.dumps([name, behaviour, given["listener"], given["starts"]]).encode() + b"\\n",
        listener=listener,
    )
    for name, behaviour in given["behaviours"].items()
]
ended = open(given["ended"], "a", buffering=1)
well = Supervisor(
    programs,
    environment=os.environ,
    kept=(given["witness"],),
    ended=lambda name: print(name, file=ended),
    patience_seconds=given["patience"],
).run()
sys.exit(0 if well else 1)
"""

CHILD = """
import json, os, select, signal, socket, sys, time

def stop(number, frame):
    if behaviour == "finish":
        listener.close()
        sys.stdin.readline()
    sys.exit(5 if behaviour == "fail" else 0)

name, behaviour, descriptor, starts = json.loads(sys.stdin.readline())
listener = socket.socket(fileno=descriptor)
listener.settimeout(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else stop)
with open(starts, "a") as file:
    file.write(json.dumps([name, os.getpid(), time.monotonic()]) + "\\n")
if behaviour == "die":
    sys.exit(3)
while True:
    ready, _, _ = select.select([listener, sys.stdin], [], [])
    if sys.stdin in ready:
        sys.exit(0)
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue  # Another child was faster.
    connection.sendall(f"{name} {os.getpid()}".encode())
    connection.close()
"""


class Supervised:
    """A supervisor of small children, in a process of its own."""

    def __init__(self, folder: Path, behaviours: dict[str, str]) -> None:
        self.starts = folder / "starts"
        self.ended = folder / "ended"
        self._witness, witness = os.pipe()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            given = {
                "behaviours": behaviours,
                "child": CHILD,
                "listener": listener.fileno(),
                "witness": witness,
                "starts": str(self.starts),
                "ended": str(self.ended),
                "patience": PATIENCE_SECONDS,
            }
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, json.dumps(given)], pass_fds=(listener.fileno(), witness)
            )
        os.close(witness)

    @property
    def log(self) -> list[tuple[str, int, float]]:
        """The name, the process and the time of every start so far."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return [(name, pid, time) for name, pid, time in map(json.loads, lines)]

    def started(self, count: int) -> list[tuple[str, int, float]]:
        """Wait for so many starts of children, and return them."""
        return server.until(lambda: self.log if len(self.log) >= count else [], f"{count} starts")

    def times(self, name: str, count: int) -> list[float]:
        """Wait for so many starts of one child, and return when they were."""

        def found() -> list[float]:
            times = [time for started, _, time in self.log if started == name]
            return times[:count] if len(times) >= count else []

        return server.until(found, f"{count} starts of {name}")

    def ask(self) -> tuple[str, int]:
        """Return the name and the process of the child that answers."""
        with socket.create_connection(("127.0.0.1", self.port), server.WAIT_SECONDS_MAX) as connection:
            name, pid = connection.recv(100).split()
        return name.decode(), int(pid)

    def nobody_is_left(self) -> bool:
        """Wait until the supervisor and all children have ended."""
        ready, _, _ = select.select([self._witness], [], [], server.WAIT_SECONDS_MAX)
        return bool(ready) and os.read(self._witness, 1) == b""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(server.WAIT_SECONDS_MAX)

    def close(self) -> None:
        """End everything, whatever the test left."""
        self.process.kill()
        self.process.wait()
        assert self.nobody_is_left()
        os.close(self._witness)


def refused(port: int) -> bool:
    """Say whether nobody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Make supervisors of children that behave as told."""
    with contextlib.ExitStack() as stack:

        def make(**behaviours: str) -> Supervised:
            return stack.enter_context(contextlib.closing(Supervised(tmp_path, behaviours)))

        yield make


Supervise = Callable[..., Supervised]


def test_children_serve_the_socket_that_they_inherit(supervise: Supervise) -> None:
    """Every program runs once, and whoever connects is answered by one of them."""
    supervised = supervise(a="serve", b="serve", c="serve")

    started = supervised.started(3)

    assert {name for name, _, _ in started} == {"a", "b", "c"}
    assert supervised.ask() in {(name, pid) for name, pid, _ in started}


def test_a_killed_child_is_replaced(supervise: Supervise) -> None:
    """A child that dies is told of and replaced at once, by a process that serves under its name."""
    supervised = supervise(only="serve")
    (_, killed, _), *_ = supervised.started(1)

    os.kill(killed, signal.SIGKILL)

    _, (name, pid, _) = supervised.started(2)
    assert supervised.ask() == (name, pid) == ("only", pid)
    assert pid != killed
    assert supervised.ended.read_text() == "only\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(supervise: Supervise, number: signal.Signals) -> None:
    """On SIGTERM and on SIGINT every child ends, then the supervisor, and the port is free."""
    supervised = supervise(a="serve", b="serve")
    supervised.started(2)

    status = supervised.stop(number)

    assert status == 0
    assert supervised.nobody_is_left()
    assert refused(supervised.port)


def test_a_storm_of_signals_ends_all_once(supervise: Supervise) -> None:
    """Signals that come again while the children end change nothing."""
    supervised = supervise(a="serve", b="serve")
    supervised.started(2)

    for number in (signal.SIGTERM, signal.SIGINT) * 100:
        supervised.process.send_signal(number)

    assert supervised.process.wait(server.WAIT_SECONDS_MAX) == 0
    assert supervised.nobody_is_left()
    assert supervised.ended.read_text().split() in (["a", "b"], ["b", "a"])


def test_a_signal_at_the_very_start_ends_all(supervise: Supervise) -> None:
    """A child that was told to stop before it could listen to signals has ended well, too."""
    supervised = supervise(a="serve", b="serve")
    server.until(lambda: children_of(supervised.process.pid), "children")

    assert supervised.stop() == 0
    assert supervised.nobody_is_left()


def test_children_end_when_the_supervisor_is_killed(supervise: Supervise) -> None:
    """No child outlives a supervisor that had no time to say so, and the port is free."""
    supervised = supervise(a="serve", b="serve")
    supervised.started(2)

    supervised.stop(signal.SIGKILL)

    assert supervised.nobody_is_left()
    assert refused(supervised.port)


def test_a_child_that_dies_at_once_is_started_ever_later(supervise: Supervise) -> None:
    """The first restart comes at once, each further one later than the one before; others go on."""
    supervised = supervise(broken="die", sound="serve")

    starts = supervised.times("broken", 5)

    pauses = [after - before for before, after in pairwise(starts)]
    for pause, least in zip(pauses, (0, 0.25, 0.5, 1.0), strict=True):
        assert least <= pause < least + 5
    assert supervised.ask()[0] == "sound"


def test_a_program_that_cannot_be_started_hinders_nobody(supervise: Supervise) -> None:
    """What cannot be started is tried again, while the others serve and end as they should."""
    supervised = supervise(absent="absent", sound="serve")

    assert supervised.ask()[0] == "sound"
    assert supervised.stop() == 0
    assert supervised.nobody_is_left()


def test_a_child_that_does_not_end_is_killed(supervise: Supervise) -> None:
    """A child that is deaf to SIGTERM is killed after the time it had, and the exit status says so."""
    supervised = supervise(deaf="stubborn", sound="serve")
    supervised.started(2)

    status = supervised.stop()

    assert status == 1
    assert supervised.nobody_is_left()


def test_a_child_that_ends_badly_is_told_of(supervise: Supervise) -> None:
    """Where a child fails while stopping, the supervisor fails."""
    supervised = supervise(bad="fail", sound="serve")
    supervised.started(2)

    assert supervised.stop() == 1


def test_nobody_waits_for_children_that_have_left(supervise: Supervise) -> None:
    """While a child finishes what it has, who connects is refused, and not kept waiting for nobody."""
    supervised = supervise(busy="finish")
    supervised.started(1)

    supervised.process.terminate()

    assert server.until(lambda: refused(supervised.port), "the port to close")
    assert supervised.process.poll() is None
    assert supervised.process.wait(server.WAIT_SECONDS_MAX) == 1


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_several_workers_need_postgresql(tmp_path: Path) -> None:
    """On SQLite, more than one worker is refused with what to set instead, before anything is made."""
    done = subprocess.run(
        [sys.executable, "-m", "meter", "serve", "--sample", "--workers", "2"],
        env=server.environment(tmp_path / "data"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 78
    assert "METER_DATABASE_URL" in done.stderr
    assert "postgresql://" in done.stderr
    assert not (tmp_path / "data").exists()


# From here on: meter itself, on PostgreSQL.

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


class Workers(Meter):
    """A running `meter serve --workers`."""

    @property
    def processes(self) -> dict[str, int]:
        """The children by name, as the log says who is who; the last one of a name is who lives."""
        found = re.findall(r"([\w-]+) is process (\d+)", self.log.read_text())
        return {name: int(pid) for name, pid in found}

    def answer(self) -> None:
        """Wait until both sockets are served: starting all children can take longer than clients wait."""
        urls = (f"{self.url.removesuffix('/v1')}/health/ready", self.control_url)
        for url in urls:
            httpx.get(url, timeout=server.WAIT_SECONDS_MAX, trust_env=False)

    def scrape(self) -> str:
        """Return the page of metrics; one that a killed process leaves unanswered is asked for again."""

        def page() -> str:
            try:
                with self.control as control:
                    answer = control.get("/metrics", timeout=server.WAIT_SECONDS_MAX)
            except httpx.TransportError:
                return ""
            assert answer.status_code == httpx.codes.OK
            return answer.text

        return server.until(page, "the page of metrics")

    def counted(self, name: str, **labels: str) -> float:
        """Add up the series of one metric that have these labels."""
        families = text_string_to_metric_families(self.scrape())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def listens(self) -> bool:
        """Say whether a new connection is taken."""
        return not refused(httpx.URL(self.url).port or 0)


@pytest.fixture
def workers(upstream: FakeUpstream, tmp_path: Path) -> Iterator[Workers]:
    """Run meter with several workers on a fresh database of PostgreSQL."""
    with services.fresh_database() as url:
        environment = server.environment(
            tmp_path / "data",
            database_url=url,
            pepper=PEPPER,
            upstream_url=upstream.url,
            upstream_api_key="sk-upstream-secret",
        )
        running = Workers(tmp_path / "data", environment, ["--workers", str(WORKERS)])
        running.database = Database(url)
        try:
            running.answer()
            yield running
        finally:
            running.stop()


def complete(meter: Meter, key: str, count: int) -> None:
    """Send requests in parallel, each on a connection of its own, so that all workers get some."""

    async def send() -> list[httpx.Response]:
        headers = {"authorization": f"Bearer {key}", "connection": "close"}
        limits = httpx.Limits(max_connections=None)
        timeout = server.WAIT_SECONDS_MAX
        async with httpx.AsyncClient(
            headers=headers, limits=limits, timeout=timeout, trust_env=False
        ) as client:
            sending = [client.post(f"{meter.url}/chat/completions", json=REQUEST) for _ in range(count)]
            return await asyncio.gather(*sending)

    for answer in asyncio.run(send()):
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json() == COMPLETION


def ask_once(meter: Meter, key: str) -> bool:
    """Send one request; says whether it was answered, and not cut off."""
    headers = {"authorization": f"Bearer {key}", "connection": "close"}
    url, seconds = f"{meter.url}/chat/completions", server.WAIT_SECONDS_MAX
    try:
        answer = httpx.post(url, json=REQUEST, headers=headers, timeout=seconds, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def replaced(workers: Workers, name: str, killed: int) -> None:
    """Wait until a child that was killed has a successor."""
    server.until(lambda: workers.processes[name] != killed, f"a successor of {name}")


def assert_metered(events: list[UsageEvent], count: int) -> None:
    """Check that there are so many events, all of them right."""
    assert len({event.event_id for event in events}) == len(events) == count
    assert {event.outcome for event in events} == {Outcome.OK}
    assert sum(event.total_tokens for event in events) == USAGE["total_tokens"] * count


def busiest(workers: Workers) -> str:
    """Return the name of the worker that has the most connections."""

    def sockets(name: str) -> int:
        targets = [str(path.readlink()) for path in Path(f"/proc/{workers.processes[name]}/fd").iterdir()]
        return sum(target.startswith("socket:") for target in targets)

    return max((name for name in workers.processes if name.startswith("data-")), key=sockets)


def test_workers_meter_together(workers: Workers, upstream: FakeUpstream) -> None:
    """What four workers settle is in the ledger and in the metrics, also after one was killed at work."""
    whole = [fake_upstream.response(json.dumps(COMPLETION).encode())]
    gate = fake_upstream.Gate()
    upstream.answer(whole)
    key = workers.new_key()

    complete(workers, key, 200)
    assert_metered(workers.events(key, 200), 200)
    assert workers.counted("meter_requests_total", outcome="ok") == 200
    upstream.answer([gate, *whole])
    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(ask_once, workers, key) for _ in range(12)]
        server.until(lambda: workers.counted("meter_inflight_requests") == 12, "the gauge to show all")
        victim = busiest(workers)
        killed = workers.processes[victim]
        os.kill(killed, signal.SIGKILL)
        gate.open()
        answered = sum(done.result() for done in asking)
    replaced(workers, victim, killed)
    upstream.answer(whole)
    complete(workers, key, 100)

    events = workers.events(key, 312)
    assert_metered([event for event in events if event.outcome is Outcome.OK], 300 + answered)
    assert sum(event.outcome is Outcome.INTERRUPTED for event in events) == 12 - answered > 0
    settled = {
        outcome: sum(event.outcome is outcome for event in events)
        for outcome in (Outcome.OK, Outcome.INTERRUPTED)
    }
    for outcome, count in settled.items():
        counted = partial(workers.counted, "meter_requests_total", outcome=outcome.value)
        assert server.until(lambda counted=counted, count=count: counted() == count, outcome.value)  # type: ignore[misc]
    assert workers.counted("meter_requests_total") == 312
    for kind in ("prompt", "completion"):
        total = sum(getattr(event, f"{kind}_tokens") for event in events)
        assert workers.counted("meter_tokens_total", kind=kind) == total
        gauge = partial(workers.counted, "meter_ledger_tokens", kind=kind)
        assert server.until(lambda gauge=gauge, total=total: gauge() == total, "the gauge of tokens")  # type: ignore[misc]
    assert workers.counted("meter_ledger_requests") == 312
    assert workers.counted("meter_ledger_estimated_requests") == settled[Outcome.INTERRUPTED]
    assert workers.counted("meter_ttfb_seconds_count") == settled[Outcome.OK]
    assert workers.counted("meter_build_info") == 1
    assert workers.counted("meter_processes") == WORKERS + 1
    assert "pid=" not in workers.scrape()


def test_counters_never_go_back(workers: Workers, upstream: FakeUpstream) -> None:
    """Whichever process is killed or told to stop, each page has at least what the last one had."""
    upstream.answer([fake_upstream.response(json.dumps(COMPLETION).encode())])
    key = workers.new_key()
    complete(workers, key, 50)
    workers.events(key, 50)

    for name, number in (
        ("data-0", signal.SIGKILL),
        ("control", signal.SIGKILL),
        ("data-1", signal.SIGTERM),
        ("control", signal.SIGTERM),
    ):
        killed = workers.processes[name]
        os.kill(killed, number)
        with ThreadPoolExecutor() as pool:
            pages = list(pool.map(lambda _: workers.counted("meter_requests_total"), range(20)))
        assert pages == [50] * 20
        replaced(workers, name, killed)
    complete(workers, key, 50)
    assert workers.counted("meter_requests_total") == 100


def test_there_is_one_process_of_each_name(workers: Workers) -> None:
    """There are as many workers as were asked for, and one process for control; none is shown a secret."""
    children = server.until(lambda: children_of(workers.process.pid), "children")

    assert set(workers.processes) == {"control", *(f"data-{number}" for number in range(WORKERS))}
    assert sorted(workers.processes.values()) == sorted(children)
    for pid in children:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert PEPPER not in command
        assert "sk-upstream" not in command
        assert workers.admin_token not in command


def test_streams_under_way_finish(workers: Workers, upstream: FakeUpstream) -> None:
    """All workers' streams are shown; on SIGTERM each goes on to its end, and nobody new is taken."""
    gate = fake_upstream.Gate()
    parts: list[dict[str, object]] = [
        {"model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {"choices": [], "usage": USAGE},
    ]
    first, last = (fake_upstream.event({"object": "chat.completion.chunk", **part}) for part in parts)
    upstream.answer(fake_upstream.stream(first, gate, last, fake_upstream.DONE))
    key = workers.new_key()
    body = REQUEST | {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {key}"}

    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(
                httpx.stream(
                    "POST", f"{workers.url}/chat/completions", json=body, headers=headers, trust_env=False
                )
            )
            for _ in range(12)
        ]
        server.until(lambda: workers.counted("meter_inflight_requests") == 12, "the gauge to show all")
        workers.process.terminate()
        server.until(lambda: not workers.listens(), "the port to close")
        gate.open()
        texts = list(pool.map(lambda stream: stream.read(), streams))

    assert workers.process.wait(server.WAIT_SECONDS_MAX) == 0, workers.log.read_text()
    assert {text.endswith(fake_upstream.DONE) for text in texts} == {True}
    assert_metered(workers.events(key, 12), 12)


def test_no_worker_outlives_a_killed_supervisor(workers: Workers) -> None:
    """After kill -9 of the supervisor its children end, and the next server gets the port and the data."""
    port = httpx.URL(workers.url).port
    workers.stop(signal.SIGKILL)
    server.until(lambda: not workers.listens(), "the port to close")

    def restart() -> list[Workers]:
        with contextlib.suppress(AssertionError):
            return [Workers(workers.data_dir, workers.env, ["--workers", "2", "--port", str(port)])]
        return []

    (again,) = server.until(restart, "the data directory")

    try:
        again.answer()
    finally:
        status = again.stop()
    assert status == 0
