"""What is measured, one section after the other; each returns its lines of the table."""

import http.client
import statistics
import sys

from benchmarks import upstream
from benchmarks.load import Asked, Loaded, body
from benchmarks.measuring import METER, Bench, Row
from benchmarks.processes import memory_bytes
from benchmarks.proxies import Proxy

PACED_STREAMS, PACE_MS, PACED_EVENTS = 100, 20, 50
# An event in 200 ms, so that all are open at once.
OPEN_STREAMS, OPEN_PACE_MS = 1000, 200
STEADY_STREAMS, STEADY_PACE_MS, STEADY_EVENTS = 1000, 20, 500
COMPARED_STREAMS = 200


def answers(bench: Bench, seconds: float, rounds: int, at_once: int) -> list[Row]:
    """Measure whole answers: what a request takes, and what is added to its time."""
    found: dict[str, list[Loaded]] = {"direct": [], **{name: [] for name in bench.proxies}}
    cpu: dict[str, list[float]] = {name: [] for name in bench.proxies}

    def work(proxy: Proxy) -> int:
        done = bench.load(proxy, Asked(), at_once=at_once, seconds=seconds)
        found[proxy.name].append(done)
        return done.requests

    for _ in range(rounds):
        work(bench.direct)
        for name, values in cpu.items():
            values.append(bench.used(name, work))
    used = {name: 1e6 * statistics.median(values) for name, values in cpu.items()}
    p50 = {name: statistics.median(done.p50_us for done in each) for name, each in found.items()}
    p99 = {name: statistics.median(done.p99_us for done in each) for name, each in found.items()}
    rows = []
    for name in bench.meters:
        what = f"{name}: JSON, {at_once} at once"
        rows.append(Row(what, "CPU µs a request", used["nginx"], used[name]))
        for unit, times in (("added µs, median", p50), ("added µs, 99 %", p99)):
            rows.append(Row(what, unit, times["nginx"] - times["direct"], times[name] - times["direct"]))
    return rows


def bursts(bench: Bench, seconds: float, rounds: int) -> list[Row]:
    """Measure streams whose events all come at once, with and without usage having to be asked for."""
    rows = []
    for asked, what in (
        (Asked(stream=True), "streams, at once"),
        (Asked(stream=True, usage=False), "streams, at once, usage put in and taken out"),
    ):

        def work(proxy: Proxy, asked: Asked = asked) -> int:
            return bench.load(proxy, asked, at_once=16, seconds=seconds).requests * upstream.EVENTS

        used = bench.compared(rounds, work)
        rows.append(Row(what, "events a CPU second", 1 / used["nginx"], 1 / used[METER]))
    return rows


def paced(bench: Bench, rounds: int) -> list[Row]:
    """Measure streams whose events come one by one."""

    def work(proxy: Proxy) -> int:
        return bench.paced(proxy, PACED_STREAMS, PACE_MS, PACED_EVENTS).events

    used = bench.compared(rounds, work)
    what = f"{PACED_STREAMS} streams, an event in {PACE_MS} ms"
    return [Row(what, "events a CPU second", 1 / used["nginx"], 1 / used[METER])]


def steady(bench: Bench) -> list[Row]:
    """Measure 1,000 streams of 50 events a second each."""
    found = {
        name: bench.paced(bench.proxies[name], STEADY_STREAMS, STEADY_PACE_MS, STEADY_EVENTS)
        for name in ("nginx", METER)
    }
    pairs = {
        "events a second": [done.events_meanwhile / done.seconds for done in found.values()],
        "µs of an event under way, median": [done.p50_us for done in found.values()],
        "µs of an event under way, 99 %": [done.p99_us for done in found.values()],
        "events lost": [float(STEADY_STREAMS * STEADY_EVENTS - done.events) for done in found.values()],
        "streams failed": [float(done.failed) for done in found.values()],
    }
    what = f"{STEADY_STREAMS} streams, an event in {STEADY_PACE_MS} ms"
    return [Row(what, unit, *pair) for unit, pair in pairs.items()]


def memory(bench: Bench) -> list[Row]:
    """Measure what many open streams take."""
    rest, peak = {}, {}
    for name in ("nginx", METER):
        pid = bench.proxies[name].pid
        rest[name] = memory_bytes(pid)
        bench.paced(bench.proxies[name], OPEN_STREAMS, OPEN_PACE_MS, PACED_EVENTS)
        peak[name] = memory_bytes(pid, peak=True)
    each = {name: (peak[name] - rest[name]) / OPEN_STREAMS / 1e3 for name in peak}
    what = f"{OPEN_STREAMS} streams"
    return [
        Row(what, "MB in all", peak["nginx"] / 1e6, peak[METER] / 1e6),
        Row(what, "kB a stream", each["nginx"], each[METER]),
    ]


def usage_is_counted(bench: Bench) -> bool:
    """Check that streams that do not ask for their usage come as they are, and are counted; prints that.

    meter asks in their place, and takes the answer out again.
    """
    expected = _stream(bench.direct)
    meter = bench.meters[METER]
    meter.wait_until_shipped()
    before = {kind: meter.counted(kind) for kind in ("prompt_tokens", "completion_tokens")}
    same = sum(_stream(bench.proxies[METER]) == expected for _ in range(COMPARED_STREAMS))
    meter.wait_until_shipped()
    after = {kind: meter.counted(kind) - count for kind, count in before.items()}
    sys.stdout.write(
        f"\n{COMPARED_STREAMS} streams that did not ask for usage: {same} as without meter, byte for byte; "
        f"tokens of each: {after['prompt_tokens'] / COMPARED_STREAMS:g} and "
        f"{after['completion_tokens'] / COMPARED_STREAMS:g} "
        f"(the upstream's: {upstream.PROMPT_TOKENS} and {upstream.COMPLETION_TOKENS})\n"
    )
    counts = {
        "prompt_tokens": COMPARED_STREAMS * upstream.PROMPT_TOKENS,
        "completion_tokens": COMPARED_STREAMS * upstream.COMPLETION_TOKENS,
    }
    return same == COMPARED_STREAMS and after == counts


def _stream(proxy: Proxy) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {proxy.key}"}
    content = body(Asked(stream=True, usage=False))
    try:
        connection.request("POST", "/v1/chat/completions", content, headers)
        return connection.getresponse().read()
    finally:
        connection.close()
