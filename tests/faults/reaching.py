"""F45, F56, F58, F59: upstreams that are not reached, answer too early, or go while they are asked."""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meter.core.events import Outcome, UsageSource
from tests import wire
from tests.fake_upstream import response
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, Skip, calm, failures
from tests.faults.script import Plan
from tests.faults.site import SQLITE, Site

ROOT = Path(__file__).parents[2]
CONNECT_SECONDS = 1.0
ANSWER_SECONDS_MAX = 10.0
EARLY_BYTES = 4_000_000
STALE_REQUESTS = 200
STALE_CLIENTS = 4
# Both ways: a request and its answer are late twice each.
NETEM = "delay 250ms 100ms loss 5%"
NETEM_SHORT = "delay 20ms 10ms loss 5%"
INSIDE = "METER_FAULTS_NETEM"
STREAMS = 20


@contextmanager
def _full() -> Iterator[int]:
    """Listen at a port whose queue is full: whoever connects hears nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def f45(case: Case) -> list[str]:
    """Have nobody listen, no such name, no TLS, and no answer at all: 502 in time, and nothing charged."""
    found: list[str] = []
    with case.site(connect_timeout_seconds=CONNECT_SECONDS) as site, _full() as full:
        plain = site.script.upstream.port
        places = {
            "refused": "http://127.0.0.1:9/v1",
            "no-name": "https://nobody.invalid/v1",
            "no-tls": f"https://127.0.0.1:{plain}/v1",
            "black-hole": f"http://127.0.0.1:{full}/v1",
        }
        for name, url in places.items():
            site.restart(upstream_url=url)
            model = f"f45-{name}"
            gots = asyncio.run(traffic.all_at_once(site.url, site.key, [model] * 5))
            found += [f"F45: {name}: {got.status} {got.fault}" for got in gots if got.status != 502]
            slowest = max(got.seconds_to_first for got in gots)
            case.notes.append(f"{name} {slowest:.1f} s")
            found += [] if slowest < ANSWER_SECONDS_MAX else [f"I8: {name}: an answer took {slowest:.1f} s"]
            events = reconciler.settled(site, model, len(gots))
            kinds = {(each.outcome, each.usage_source, each.total_tokens, each.cost) for each in events}
            if kinds != {(Outcome.UNREACHABLE, UsageSource.NONE, 0, 0)} or len(events) != len(gots):
                found.append(f"I1: {name}: {len(events)} events of {len(gots)}: {kinds}")
        site.restart()
        return found + calm(site, "f45c", told=case.full)


class _Raw:
    """An upstream on plain sockets, in threads, for what a decent server never does."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(ANSWER_SECONDS_MAX)
            self._serve(connection)


def f56(case: Case) -> list[str]:
    """Answer before the request is here, and read no more of it: nobody waits for anybody."""
    refusal = b'{"error":{"message":"too large for me"}}'

    def serve(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(4096)):
            head += data
        connection.sendall(response(refusal, status="413 Too Large"))
        # The rest is never read; whoever still sends hears of it in the end.
        time.sleep(1)

    found: list[str] = []
    early = _Raw(serve)
    with case.site() as site:
        site.start(upstream_url=early.url)
        for run in range(case.runs):
            model = f"f56-{run}"
            body = wire.chat(model=model, messages=[{"role": "user", "content": "x" * EARLY_BYTES}])
            began = time.monotonic()
            answer = wire.post(site.url, site.key, body)
            took = time.monotonic() - began
            case.notes.append(f"{answer.status} after {took:.1f} s")
            found += [] if answer.status in {413, 502} else [f"F56: the client got {answer.status}"]
            found += [] if took < ANSWER_SECONDS_MAX else [f"I8: it took {took:.1f} s"]
            events = reconciler.settled(site, model)
            if [each.usage_source for each in events] != [UsageSource.NONE]:
                found.append(f"I1: its events are {events}")
        early.close()
        site.restart()
        return found + calm(site, "f56c", told=case.full)


class _Closing:
    """Answers a request, and closes the connection just when the next one may be coming."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.seen: list[bytes] = []
        self.answered = 0

    def serve(self, connection: socket.socket) -> None:
        """Answer one to three requests."""
        for _ in range(self._random.randint(1, 3)):
            request = self._read(connection)
            if request is None:
                return
            connection.sendall(response(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'))
            with self._lock:
                self.answered += 1
        time.sleep(self._random.random() * 0.003)

    def _read(self, connection: socket.socket) -> bytes | None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            data = connection.recv(65536)
            if not data:
                return None
            raw += data
        head, _, body = raw.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        with self._lock:
            self.seen.append(body)
        return body


def f58(case: Case) -> list[str]:
    """Close kept connections at the very moment of their next use: nothing is sent twice, nothing is lost."""
    found: list[str] = []
    with case.site() as site:
        for run in range(case.runs):
            closing = _Closing(case.seed + run)
            upstream = _Raw(closing.serve)
            site.restart(upstream_url=upstream.url)
            prefix = f"f58-{run}-"
            gots = asyncio.run(_ask_in_turns(site, prefix))
            upstream.close()
            good = [got for got in gots if got.status == 200 and got.whole]
            bad = [got for got in gots if got.status != 200]
            case.notes.append(f"{len(bad)} of {len(gots)} met a closed connection")
            found += [f"F58: {got.model}: {got.status} {got.fault}" for got in bad if got.status != 502]
            found += [] if len(good) + len(bad) == len(gots) else ["F58: an answer is not whole"]
            found += _once(site, prefix, gots, closing)
        site.restart()
        return found + calm(site, "f58c", told=case.full)


async def _ask_in_turns(site: Site, prefix: str) -> list[traffic.Got]:
    gots: list[traffic.Got] = []

    async def one(client: int) -> None:
        names = (f"{prefix}{client}-{number}" for number in range(STALE_REQUESTS // STALE_CLIENTS))
        gots.extend([await traffic.ask(site.url, site.key, name, stream=False) for name in names])

    await asyncio.gather(*(one(client) for client in range(STALE_CLIENTS)))
    return gots


def _once(site: Site, prefix: str, gots: list[traffic.Got], closing: _Closing) -> list[str]:
    found = (
        [] if len(set(closing.seen)) == len(closing.seen) else ["I1: a request reached the upstream twice"]
    )
    by_model = {got.model: reconciler.settled(site, got.model) for got in gots}
    found += [f"I1: {model} has {len(each)} events" for model, each in by_model.items() if len(each) != 1]
    reported = sum(event.usage_source is UsageSource.REPORTED for each in by_model.values() for event in each)
    good = sum(got.status == 200 for got in gots)
    return (
        found if reported == good else [*found, f"I1: {good} answers came, {reported} are reported: {prefix}"]
    )


def f59(case: Case) -> list[str]:
    """Make the network late, uneven and lossy, in a network of its own: streams come whole."""
    if INSIDE in os.environ:
        return _late(case)
    for program in ("tc", "unshare", "ip"):
        if shutil.which(program) is None:
            raise Skip(f"there is no {program}")
    netem = NETEM if case.full else NETEM_SHORT
    setup = f"ip link set lo up && tc qdisc add dev lo root netem {netem}"
    if subprocess.run(["unshare", "-n", "sh", "-c", setup], capture_output=True, check=False).returncode:
        raise Skip("the kernel delays no packets for us (tc netem in unshare -n)")
    inside = f"{sys.executable} -m tests.faults --database {SQLITE} --only F59 --runs {case.runs}"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"{setup} && {inside}"],
        cwd=ROOT,
        env=os.environ | {INSIDE: netem},
        capture_output=True,
        text=True,
        check=False,
    )
    case.notes.append(netem)
    return [] if done.returncode == 0 else [f"F59: {done.stdout[-800:]}{done.stderr[-400:]}"]


def _late(case: Case) -> list[str]:
    found: list[str] = []
    with case.site() as site:
        site.start()
        for run in range(case.runs):
            site.script.play(Plan(pieces=20, pause=0.02))
            gots = asyncio.run(
                traffic.all_at_once(site.url, site.key, [f"f59-{run}-{number}" for number in range(STREAMS)])
            )
            found += failures(gots, "streams over a bad network")
            found += reconciler.reconcile(site, gots, f"f59-{run}-")
        return found + calm(site, "f59c", STREAMS * case.runs, told=False)


EXPERIMENTS = (
    Experiment("F45", f45, 1, 1),
    Experiment("F56", f56, 3, 0, postgresql_runs=1),
    Experiment("F58", f58, 10, 1, postgresql_runs=1),
    Experiment("F59", f59, 2, 0, databases=(SQLITE,)),
)
