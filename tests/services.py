"""The servers that tests need: where they are, databases of one's own on them, and a PostgreSQL that may die.

`METER_TEST_POSTGRES` and `METER_TEST_REDIS` say where they are, by default on their usual ports, and
`METER_TEST_CHROMIUM` which browser looks at the page; Prometheus is looked for on the path. A test whose
server does not answer, or that finds no program, is skipped with the reason, unless `METER_TEST_REQUIRE`
names it (`postgres`, `redis`, `chromium`, `prometheus`): then it fails.
"""

import functools
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS = "redis://127.0.0.1:6379/0"
ANSWER_SECONDS_MAX = 20
PROCESS_SECONDS_MAX = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
POSTGRES_PROGRAMS = "/usr/lib/postgresql"
# Below those that Linux gives to whoever connects, or listens at port 0.
PORTS = range(20_000, 32_000)


def postgres_url() -> str:
    """Return where PostgreSQL is, or skip the test."""
    url = os.environ.get("METER_TEST_POSTGRES", POSTGRES)
    fault = _postgres_fault(url)
    if fault:
        _lack("postgres", f"no PostgreSQL at METER_TEST_POSTGRES={_without_password(url)}: {fault}")
    return url


def redis_url() -> str:
    """Return where Redis is, or skip the test."""
    url = os.environ.get("METER_TEST_REDIS", REDIS)
    fault = _redis_fault(url)
    if fault:
        _lack("redis", f"no Redis at METER_TEST_REDIS={_without_password(url)}: {fault}")
    return url


def chromium() -> str:
    """Return the path of a browser, or skip the test."""
    named = os.environ.get("METER_TEST_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        _lack("chromium", f"there is no {named or 'Chromium on the path'}")
    return found


@contextmanager
def fresh_database() -> Iterator[str]:
    """Make an empty database of one's own on PostgreSQL; yields its URL, and drops it at the end."""
    server = postgres_url()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = f"meter_test_{worker}_{secrets.token_hex(4)}"
    _administer(server, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def copied(url: str) -> Iterator[str]:
    """Make a copy of a database that nobody is connected to; yields its URL, and drops it at the end."""
    original = urlsplit(url).path.lstrip("/")
    name = f"{original}_{secrets.token_hex(4)}"
    server = postgres_url()
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {original}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def cluster(*, start: bool = True) -> Iterator["Cluster"]:
    """Run a PostgreSQL server of one's own, to be stopped and paused as a test likes."""
    programs = postgres_programs()
    # Not in pytest's own folders: the server's user has to get there.
    with tempfile.TemporaryDirectory(prefix="meter-test-cluster-") as folder:
        made = Cluster(programs, Path(folder))
        if start:
            made.start()
        try:
            yield made
        finally:
            made.stop()


class Cluster:
    """A PostgreSQL server in a folder of its own, on a free port."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder
        self.environment: dict[str, str] = {}
        """What its processes find in their environment."""
        self._data = folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")

    def start(self, *more: str) -> None:
        """Start the server, with more options if need be, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        options = " ".join([options, *more])
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(self._data / "log"), "-o", options)

    def stop(self) -> None:
        """End the server and every connection to it at once; nothing to do where it is ended."""
        if self._running():
            self.resume()
            self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=fast")

    def pause(self) -> None:
        """Stop all of its processes where they are: its ports are open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes go on."""
        self._signal(signal.SIGCONT)

    def _running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def _signal(self, number: signal.Signals) -> None:
        parent = int((self._data / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
        # The parent first: it must neither replace nor count what it misses.
        os.kill(parent, number)
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
        for child in children.split():
            # One that was about to end when it was paused is gone by now.
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "--pgdata", self._data, *arguments],
            user=self._user,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | self.environment,
            stdout=subprocess.DEVNULL,
            timeout=PROCESS_SECONDS_MAX,
            check=True,
        )


def prometheus_program(name: str) -> str:
    """Return where `prometheus` or `promtool` is, or skip the test."""
    program = shutil.which(name)
    if program is None:
        _lack("prometheus", f"there is no {name} on the path")
    return program


@contextmanager
def prometheus_server(config: Path, data: Path) -> Iterator[str]:
    """Run a Prometheus of one's own on a free port; yields its URL, or skips where there is none."""
    with prometheus_with([f"--config.file={config}", f"--storage.tsdb.path={data}"]) as url:
        yield url


@contextmanager
def prometheus_with(options: Sequence[str]) -> Iterator[str]:
    """Run one with options that say where its configuration and its data are."""
    program, port = prometheus_program("prometheus"), free_port()
    arguments = [*options, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(PROCESS_SECONDS_MAX)


@contextmanager
def redis_server() -> Iterator["RedisServer"]:
    """Run a Redis of one's own, to be stopped and paused as a test likes; skips where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        _lack("redis", "there is no redis-server on the path")
    with tempfile.TemporaryDirectory(prefix="meter-test-redis-") as folder:
        made = RedisServer(program, Path(folder))
        try:
            yield made
        finally:
            made.stop()


class RedisServer:
    """A Redis server on a free port, not yet started."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> None:
        """Start it, with more options if need be, and wait until it answers."""
        arguments = [
            *more,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        self._process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PROCESS_SECONDS_MAX
        while not self.answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def answers(self) -> bool:
        """Say whether it answers."""
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, command: str) -> bytes:
        """Send a command, and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS_MAX) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536)

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PROCESS_SECONDS_MAX)
            self._process = None

    def pause(self) -> None:
        """Stop it where it is: its port is open, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def postgres_programs() -> Path:
    """Return where PostgreSQL's programs are, or skip the test."""
    found = [path.parent for path in sorted(Path(POSTGRES_PROGRAMS).glob("*/bin/pg_ctl"))]
    on_path = shutil.which("pg_ctl")
    if not found and not on_path:
        _lack("postgres", "PostgreSQL's programs (initdb, pg_ctl) are not installed")
    return Path(on_path).resolve().parent if on_path else found[-1]


def _lack(service: str, reason: str) -> NoReturn:
    if service in os.environ.get("METER_TEST_REQUIRE", "").split(","):
        pytest.fail(f"{reason} (METER_TEST_REQUIRE asks for it)")
    pytest.skip(reason)


@functools.cache
def _postgres_fault(url: str) -> str | None:
    try:
        psycopg.connect(url, connect_timeout=ANSWER_SECONDS_MAX).close()
    except psycopg.Error as fault:
        return str(fault).splitlines()[0]
    return None


@functools.cache
def _redis_fault(url: str) -> str | None:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 6379), ANSWER_SECONDS_MAX) as connection:
            # An error, such as the wish for a password, is an answer too.
            connection.sendall(b"PING\r\n")
            return None if connection.recv(1) in {b"+", b"-"} else "what answers is no Redis"
    except OSError as fault:
        return str(fault)


def _administer(url: str, statement: str) -> None:
    with closing(psycopg.connect(url, autocommit=True, connect_timeout=ANSWER_SECONDS_MAX)) as connection:
        connection.execute(statement.encode())


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def free_port() -> int:
    """Return a port that nobody listens at, on any address, and that the kernel gives to nobody by itself.

    It may be opened later, or again and again: one of the kernel's choice would be somebody else's by then.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with suppress(OSError), closing(socket.create_server(("", port))):
            return port
    raise OSError("there is no free port")
