"""The services of docker-compose.yml by hand: as the file says, at other addresses and paths.

nginx with the committed configuration, two meter servers with the file's environment, secrets by
deploy/secrets.sh, on a PostgreSQL database and a Redis that are there.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests import server, services
from tests.deploy import compose, replace

ROOT = compose.ROOT
# Each server has an address of its own, as in the file it has a name.
ADDRESSES = {"meter-1": "127.0.0.2", "meter-2": "127.0.0.3"}
KEY = "sk-of-the-provider"


@dataclass
class Stack:
    """What runs."""

    folder: Path
    database_url: str
    port: int
    """Where nginx serves the data listeners."""
    control_port: int
    reload: str
    """What makes nginx read its configuration again."""

    @property
    def url(self) -> str:
        """The API, through nginx."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def secrets(self) -> Path:
        """Where the secrets are."""
        return self.folder / "secrets"

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a server, for commands beside it."""
        told = msgspec.json.decode((self.folder / f"{ADDRESSES[name]}.json").read_bytes())
        found: dict[str, str] = told["environment"]
        return found

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside a server."""
        return subprocess.run(
            [sys.executable, "-m", "meter", *arguments],
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def roll(self, rounds: int = 1) -> None:
        """Replace all servers by deploy/roll.sh."""
        own = {
            "NGINX_FOLDER": str(self.folder / "nginx"),
            "RELOAD": self.reload,
            "REPLACE": f"{sys.executable} -m tests.deploy.replace {self.folder}",
            "SERVERS": " ".join(ADDRESSES.values()),
        }
        for _ in range(rounds):
            done = subprocess.run(
                [ROOT / "deploy" / "roll.sh"],
                cwd=ROOT,
                env=os.environ | own,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr


@contextmanager
def running(folder: Path, upstream_url: str, **settings: object) -> Iterator[Stack]:
    """Run everything; skips where there is no nginx, PostgreSQL or Redis."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("there is no nginx")
    redis_url = services.redis_url()
    # Where a run as root hands its workers to another user.
    folder.chmod(0o755)
    with ExitStack() as stack:
        database_url = stack.enter_context(services.fresh_database())
        ports = [services.free_port() for _ in range(4)]
        conf = _nginx_folder(folder, ports)
        found = Stack(folder, database_url, ports[2], ports[3], f"{nginx} -c {conf} -s reload")
        _make_secrets(found)
        changed = {"METER_REDIS_URL": redis_url, "METER_UPSTREAM_URL": upstream_url}
        changed |= {f"METER_{name.upper()}": str(value) for name, value in settings.items()}
        for name, address in ADDRESSES.items():
            _write_orders(found, name, address, ports, changed)
            stack.callback(replace.stop, folder, address)
            # In a process of its own, as roll.sh does it later: a server is nobody's child.
            subprocess.run(
                [sys.executable, "-m", "tests.deploy.replace", folder, address], cwd=ROOT, check=True
            )
        stack.enter_context(_nginx(nginx, conf, ports[2:]))
        yield found


def _make_secrets(stack: Stack) -> None:
    subprocess.run(
        [ROOT / "deploy" / "secrets.sh", stack.secrets],
        env=os.environ | {"ROUTERHUB_API_KEY": KEY},
        capture_output=True,
        check=True,
    )
    (stack.secrets / "database-url").write_text(stack.database_url + "\n")


def _write_orders(stack: Stack, name: str, address: str, ports: list[int], changed: dict[str, str]) -> None:
    service = compose.load()["services"][name]
    told = compose.environment(service) | changed
    told = {variable: value.replace("/run/secrets", str(stack.secrets)) for variable, value in told.items()}
    # What the image's own environment says.
    told |= {"METER_HOST": address, "METER_ADMIN_HOST": address, "METER_PRICES_SEED": "none"}
    told |= {"METER_PORT": str(ports[0]), "METER_ADMIN_PORT": str(ports[1])}
    bare = {
        key: value
        for key, value in server.environment(stack.folder / f"data-{name}").items()
        if key not in told
    }
    orders = {
        "command": [sys.executable, "-m", "meter", *service["command"]],
        "environment": bare | told | {"PYTHONPATH": str(ROOT)},
        "ready": f"http://{address}:{ports[0]}/health/ready",
    }
    (stack.folder / f"{address}.json").write_bytes(msgspec.json.encode(orders))


def _nginx_folder(folder: Path, ports: list[int]) -> Path:
    """Copy the committed configuration, with other addresses."""
    copy = shutil.copytree(ROOT / "deploy" / "nginx", folder / "nginx")
    servers = copy / "servers.conf"
    text = servers.read_text()
    for name, address in ADDRESSES.items():
        text = text.replace(f"{name}:8080", f"{address}:{ports[0]}").replace(
            f"{name}:8081", f"{address}:{ports[1]}"
        )
    servers.write_text(text)
    conf = copy / "nginx.conf"
    text = conf.read_text().replace("/tmp/", f"{folder}/")  # noqa: S108 (where the file says)
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{ports[2]};")
    text = text.replace("listen 8081;", f"listen 127.0.0.1:{ports[3]};")
    conf.write_text(re.sub(r"worker_processes auto;", "worker_processes 2;", text))
    return conf


@contextmanager
def _nginx(program: str, conf: Path, ports: Sequence[int]) -> Iterator[None]:
    command = compose.load()["services"]["nginx"]["command"]
    assert command[1:3] == ["-c", "/etc/nginx/meter/nginx.conf"]
    with (conf.parent / "log").open("ab") as log:
        process = subprocess.Popen([program, "-c", conf, *command[3:]], stderr=log)
    try:
        server.until(lambda: all(map(_answers, ports)), "nginx to listen")
        assert process.poll() is None, (conf.parent / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(server.WAIT_SECONDS_MAX)


def _answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
