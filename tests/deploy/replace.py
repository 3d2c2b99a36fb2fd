"""What `docker compose up --force-recreate --wait SERVER` does, with processes: stop it, start it, wait.

`python -m tests.deploy.replace FOLDER SERVER`; the folder has SERVER.json, with its command, environment and
URL, and SERVER.pid while it runs. The server outlives this.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

SECONDS_MAX = 90.0


def stop(folder: Path, server: str) -> None:
    """Stop a server as a container is stopped, and wait for its end."""
    file = folder / f"{server}.pid"
    if not file.exists():
        return
    process = int(file.read_text())
    os.kill(process, signal.SIGTERM)
    _until(lambda: not _runs(process), f"{server} to end")
    file.unlink()


def start(folder: Path, server: str) -> None:
    """Start a server, and wait until it is ready."""
    told = json.loads((folder / f"{server}.json").read_text())
    with (folder / f"{server}.log").open("ab") as log:
        process = subprocess.Popen(
            told["command"],
            env=told["environment"],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{server}.pid").write_text(str(process.pid))
    _until(lambda: _is_ready(told["ready"]), f"{server} to be ready")


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (a URL of ours)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {SECONDS_MAX:.0f} s for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    stop(Path(sys.argv[1]), sys.argv[2])
    start(Path(sys.argv[1]), sys.argv[2])
