"""The processes of a measurement: started here, watched by what the kernel says of them."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a program until the block ends; yields its process id once it listens at its port."""
    with log.open("ab") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, env=env)
    try:
        _wait(process, port, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all of its threads, the kernel's part included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_bytes(pid: int, *, peak: bool = False) -> int:
    """Return how much memory a process takes, or took at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def tree_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of all that it has started and that still run."""
    return sum(cpu_seconds(one) for one in _tree(pid))


def tree_memory_bytes(pid: int) -> int:
    """Return how much memory a process and its descendants take."""
    return sum(memory_bytes(one) for one in _tree(pid))


def _tree(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for one in lists for child in one.read_text().split()]
    return [pid, *(found for child in children for found in _tree(child))]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
