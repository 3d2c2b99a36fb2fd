"""Puts other gateways beside meter: `python -m benchmarks.others`, or `make bench-others`.

Each is installed as its documentation says, in a folder that is removed afterwards, and gets the same
requests in the same run, in turn with meter and nginx. Of each the processor time of all its processes
counts. One that cannot be installed or does not start is said to be missing.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Asked, Target, load
from benchmarks.measuring import METER, Bench, running, upstreams
from benchmarks.processes import free_ports, started, tree_cpu_seconds, tree_memory_bytes
from benchmarks.proxies import MODEL

AT_ONCE = 16
WARM_SECONDS = 2.0
LITELLM_KEY = "sk-litellm"


class Missing(Exception):
    """A gateway that is not here."""


class Gateway(NamedTuple):
    """One that runs."""

    pid: int
    target: Target


Start = Callable[[Path, int, int], contextlib.AbstractContextManager[Gateway]]


@contextlib.contextmanager
def portkey(folder: Path, port: int, upstream: int) -> Iterator[Gateway]:
    """Run Portkey's gateway, told by headers where to go."""
    _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@portkey-ai/gateway")
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(script), f"--port={port}", "--headless"]
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    with started(command, port, folder / "portkey.log") as pid:
        yield Gateway(pid, Target(port, "sk-bench", headers))


@contextlib.contextmanager
def litellm(folder: Path, port: int, upstream: int) -> Iterator[Gateway]:
    """Run LiteLLM's proxy without a database: one key, and a price."""
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(folder / "bin" / "pip"), "install", "--quiet", "litellm[proxy]")
    parameters = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{upstream}/v1",
        "api_key": "sk-bench",
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 15e-6,
    }
    # JSON is YAML.
    config = folder / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
                "general_settings": {"master_key": LITELLM_KEY},
            }
        )
    )
    program = str(folder / "bin" / "litellm")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    # It would fetch its list of prices, and log each request.
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with started(command, port, folder / "litellm.log", env) as pid:
        yield Gateway(pid, Target(port, LITELLM_KEY))


OTHERS: dict[str, Start] = {"Portkey": portkey, "LiteLLM": litellm}


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as fault:
        raise Missing(str(fault)) from fault
    except subprocess.CalledProcessError as fault:
        told = (fault.stderr or fault.stdout).strip().splitlines()
        raise Missing(told[-1] if told else str(fault)) from fault


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.others", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="How long each load lasts.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with running({METER: "power"}) as bench, contextlib.ExitStack() as stack:
        gateways = {
            name: Gateway(proxy.pid, Target(proxy.port, proxy.key)) for name, proxy in bench.proxies.items()
        }
        for name, start in OTHERS.items():
            try:
                gateways[name] = stack.enter_context(_started(bench.folder / name, start))
            except (Missing, RuntimeError) as fault:
                sys.stdout.write(f"{name} is missing: {fault}\n")
        found = _measure(bench, gateways, given.seconds, given.rounds)
        _write(found, {name: tree_memory_bytes(one.pid) for name, one in gateways.items()})
    return 0


@contextlib.contextmanager
def _started(folder: Path, start: Start) -> Iterator[Gateway]:
    """Run a gateway before an upstream of its own."""
    folder.mkdir()
    port, source = free_ports(2)
    with upstreams(folder, [source]), start(folder, port, source) as gateway:
        yield gateway


class Taken(NamedTuple):
    """What a gateway takes."""

    us: list[float]
    """Processor time of a request, by round."""
    p50_ms: list[float]
    failed: int


def _measure(bench: Bench, gateways: dict[str, Gateway], seconds: float, rounds: int) -> dict[str, Taken]:
    found = {name: Taken([], [], 0) for name in gateways}
    for number in range(rounds + 1):
        for name, one in gateways.items():
            before = tree_cpu_seconds(one.pid)
            lasts = seconds if number else WARM_SECONDS
            done = load(bench.folder, one.target, Asked(), at_once=AT_ONCE, seconds=lasts)
            if name in bench.meters:
                bench.meters[name].wait_until_shipped()
            # The first round warms up, and may take longer than wrk waits.
            if number:
                us = 1e6 * (tree_cpu_seconds(one.pid) - before) / max(1, done.requests)
                found[name].us.append(us)
                found[name].p50_ms.append(done.p50_us / 1e3)
                found[name] = found[name]._replace(failed=found[name].failed + done.failed)
    return found


def _write(found: dict[str, Taken], memory: dict[str, int]) -> None:
    meter = statistics.median(found[METER].us)
    sys.stdout.write(
        f"JSON, {AT_ONCE} at once:\n\n"
        "| gateway | CPU µs a request | meter's is | ms, median | MB | failed |\n|---|---|---|---|---|---|\n"
    )
    for name, taken in found.items():
        us = statistics.median(taken.us)
        sys.stdout.write(
            f"| {name} | {us:,.0f} | {meter / us:.2f} times that | {statistics.median(taken.p50_ms):.1f} "
            f"| {memory[name] / 1e6:.0f} | {taken.failed} |\n"
        )


if __name__ == "__main__":
    sys.exit(main())
