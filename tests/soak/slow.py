"""Thousands of clients that send or read as slowly as they can (slowhttptest), and what others notice.

python -m tests.soak.slow [--connections 4000] [--seconds 30] prints it, and exits with 1 if a
bound is broken.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import server
from tests.server import Meter
from tests.soak import outside
from tests.soak.samples import Life, flatness, look

PROGRAM = "slowhttptest"
ALONE_SECONDS = 5.0
PAUSE_SECONDS = 0.05
MS_MAX = 200.0
RAMP_SECONDS = 4.0
FILES_MORE_MAX = 8
# The least part of the connections that must have been there at the same time.
HELD_PART = 0.5
BACK_SECONDS_MAX = 100.0


class Skip(Exception):
    """The program is missing."""


def attacks(meter: Meter, connections: int, seconds: float) -> dict[str, list[str]]:
    """Return the commands of the attacks by their names."""
    common = ["-c", str(connections), "-r", str(int(connections / RAMP_SECONDS)), "-l", str(int(seconds))]
    models, chat = f"{meter.url}/models", f"{meter.url}/chat/completions"
    # It sends what it is given as the value of a header: here with the line that lets it in.
    admitted = f"\r\nAuthorization: Bearer {meter.first_key}"
    return {
        "slow headers": ["-H", *common, "-i", "5", "-x", "24", "-t", "GET", "-u", models],
        "slow bodies": [
            *("-B", *common, "-i", "5", "-x", "10", "-s", "8192", "-t", "POST"),
            *("-f", f"application/json{admitted}", "-u", chat),
        ],
        "slow reading": [
            *("-X", *common, "-n", "2", "-z", "32", "-w", "512", "-y", "1024", "-k", "1"),
            *("-m", f"*/*{admitted}", "-u", models),
        ],
    }


def run(connections: int, seconds: float, say: Callable[[str], object], ms_max: float = MS_MAX) -> list[str]:
    """Attack in each way; returns what was violated. A normal request may take so long."""
    if shutil.which(PROGRAM) is None:
        raise Skip(f"there is no {PROGRAM} on the path")
    outside.allow_files(2 * connections + 1000)
    found: list[str] = []
    with _running() as meter:
        for name, command in attacks(meter, connections, seconds).items():
            found += [f"{name}: {each}" for each in _attack(meter, name, command, connections, say, ms_max)]
    return found


@contextmanager
def _running() -> Iterator[Meter]:
    with ExitStack() as stack:
        port = stack.enter_context(outside.upstream())
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-slow-"))) / "data"
        upstream = {"upstream_url": f"http://127.0.0.1:{port}/v1", "upstream_api_key": "sk-slow"}
        meter = Meter(data_dir, server.environment(data_dir, **upstream), [])
        stack.callback(lambda: meter.stop(signal.SIGKILL))
        yield meter


def _attack(
    meter: Meter, name: str, command: list[str], connections: int, say: Callable[[str], object], ms_max: float
) -> list[str]:
    """Measure before, within and behind an attack."""
    key = meter.first_key
    life = Life(name, meter.process.pid)
    # The first request of all loads what it needs.
    outside.ask(meter.url, key)
    alone = outside.times(_ask(meter, key, time.monotonic() + ALONE_SECONDS, life, None)[0])
    files = life.samples[-1].descriptors
    life.samples.clear()
    attack = subprocess.Popen([PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        ramp = _ask(meter, key, time.monotonic() + RAMP_SECONDS + 1, None, attack)
        after = _ask(meter, key, float("inf"), life, attack)
    finally:
        attack.kill()
        attack.communicate()
    beside, direct = (outside.times(first + then) for first, then in zip(ramp, after, strict=True))
    most = max((sample.descriptors for sample in life.samples), default=files) - files
    say(
        f"{name}: {most} more open files at most; requests alone: {alone}; beside it: {beside}; "
        f"to the upstream itself, without meter: {direct}"
    )
    busy = max(alone.max_ms, direct.max_ms)
    found = []
    if busy > ms_max:
        say(f"  nothing is told of its delay: on this machine a request takes {busy:.0f} ms as it is")
    elif beside.max_ms > ms_max:
        found.append(f"a normal request took {beside.max_ms:.0f} ms")
    if most < connections * HELD_PART:
        found.append(f"only {most} connections were held: nothing is shown")
    if (flat := flatness(life)) is not None:
        say(f"  {flat}")
        found += [each for each in flat.violations if "open files" not in each]
    return found + _back(meter, files)


def _ask(
    meter: Meter, key: str, until: float, life: Life | None, attack: subprocess.Popen[bytes] | None
) -> tuple[list[float], list[float]]:
    """Send normal requests until a time, or until the attack ends, and look at the server.

    Every other one goes to the upstream itself, which nobody attacks: it shows what the machine is busy with.
    """
    found = [outside.ask(meter.url, key)]
    direct = [outside.ask(meter.env["METER_UPSTREAM_URL"], key)]
    while time.monotonic() < until and (attack is None or attack.poll() is None):
        found.append(outside.ask(meter.url, key))
        direct.append(outside.ask(meter.env["METER_UPSTREAM_URL"], key))
        if life is not None and (seen := look(meter.process.pid, time.monotonic())) is not None:
            life.samples.append(seen)
        time.sleep(PAUSE_SECONDS)
    return found, direct


def _back(meter: Meter, files: int) -> list[str]:
    """Wait until the server has let go of everybody."""
    deadline = time.monotonic() + BACK_SECONDS_MAX
    more = 0
    while time.monotonic() < deadline:
        seen = look(meter.process.pid, 0)
        assert seen is not None
        more = seen.descriptors - files
        if more <= FILES_MORE_MAX:
            return []
        time.sleep(0.1)
    return [f"I7: {more} more files are open than before"]


def _say(said: str) -> None:
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.slow", description="Slow clients.")
    parser.add_argument("--connections", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=30.0, help="So long for each attack.")
    arguments = parser.parse_args()
    try:
        violations = run(arguments.connections, arguments.seconds, _say)
    except Skip as reason:
        _say(f"skipped: {reason}")
        return 0
    for violation in violations:
        _say(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
