"""What is measured: nginx as it comes, and meter with everything on."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import started

MODEL = "bench"
SHIPPED_SECONDS_MAX = 60.0

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


class Proxy(NamedTuple):
    """One that runs."""

    name: str
    port: int
    pid: int
    key: str


@contextlib.contextmanager
def nginx(folder: Path, port: int, upstream: int) -> Iterator[Proxy]:
    """Run nginx with one worker that only passes on and keeps its connections."""
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream))
    command = ["nginx", "-p", str(folder), "-c", str(config), "-e", "stderr"]
    with started(command, port, folder / "nginx.log") as pid:
        yield Proxy("nginx", port, pid, "none")


class Installed:
    """A meter with a key, a price, a rate limit and a strict budget."""

    def __init__(self, folder: Path, port: int, upstream: int, durability: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._port = port
        self._control_port = 0
        self.upstream = upstream
        kept = {name: value for name, value in os.environ.items() if not name.startswith("METER_")}
        self._env = kept | {
            "METER_DATA_DIR": str(folder / "meter-data"),
            "METER_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/v1",
            "METER_UPSTREAM_API_KEY": "sk-bench",
            "METER_PRICES_SEED": "none",
            "METER_DURABILITY": durability,
            "METER_KEY_RPM": "100000000",
            "METER_KEY_TPM": "100000000000",
        }
        self._run("db", "upgrade")
        self._run("teams", "create", "bench")
        self.key: str = json.loads(self._run("keys", "create", "--team", "bench", "--json"))["key"]
        self._run("prices", "set", MODEL, "--prompt", "3", "--cached", "0.3", "--completion", "15")
        budget = ("--team", "bench", "--limit", "1000000", "--period", "month", "--enforcement", "strict")
        self._run("budgets", "set", *budget)

    @contextlib.contextmanager
    def running(
        self, control_port: int, name: str = "meter", program: Sequence[str] = ("meter",)
    ) -> Iterator[Proxy]:
        """Run it, by a module that takes meter's arguments."""
        self._control_port = control_port
        ports = ("--port", str(self._port), "--admin-port", str(control_port))
        command = [sys.executable, "-m", *program, "serve", *ports]
        with started(command, self._port, self._folder / "meter.log", self._env) as pid:
            yield Proxy(name, self._port, pid, self.key)

    def counted(self, what: str = "requests") -> int:
        """Return how many requests, or tokens of a kind, a report counts."""
        report = json.loads(self._run("report", "--format", "json"))
        return int(report["total"][what])

    def wait_until_shipped(self) -> None:
        """Wait until every event is in the ledger."""
        deadline = time.monotonic() + SHIPPED_SECONDS_MAX
        while self._waiting():
            if time.monotonic() > deadline:
                raise RuntimeError("the ledger does not come after")
            time.sleep(0.1)

    def _waiting(self) -> float:
        token = (self._folder / "meter-data" / "admin-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self._control_port}/metrics", headers=headers)
        with urllib.request.urlopen(request) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("meter_journal_records "))

    def verify(self) -> str:
        """Return what `meter verify` says."""
        return self._run("verify").strip()

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "meter", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"meter {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout
