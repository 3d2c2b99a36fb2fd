"""What is measured: nginx as it comes, and meter with everything on."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import started

MODEL = "bench"

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
        self._folder = folder
        self._port = port
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
    def running(self, control_port: int) -> Iterator[Proxy]:
        """Run it."""
        ports = ("--port", str(self._port), "--admin-port", str(control_port))
        command = [sys.executable, "-m", "meter", "serve", *ports]
        with started(command, self._port, self._folder / "meter.log", self._env) as pid:
            yield Proxy("meter", self._port, pid, self.key)

    def requests_counted(self) -> int:
        """Return how many requests a report counts."""
        report = json.loads(self._run("report", "--format", "json"))
        return int(report["total"]["requests"])

    def verify(self) -> str:
        """Return what `meter verify` says."""
        return self._run("verify").strip()

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "meter", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"meter {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout
