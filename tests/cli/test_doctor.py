"""`meter doctor` on real parts: what is well, what is not, and what it says about that."""

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from meter import cli
from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database
from meter.store.installation import check_pepper
from tests import services

PEPPER = "p" * 32
API_KEY = "sk-upstream-canary"


class Doctor:
    """Runs `meter doctor --json` in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], folder: Path) -> None:
        self._patch, self._capture, self.data_dir = patch, capture, folder / "data"
        patch.chdir(folder)

    def examine(self, *options: str, **settings: object) -> tuple[int, str]:
        """Return the exit status, and what was printed."""
        values = {"data_dir": self.data_dir, "upstream_url": "http://127.0.0.1:9/v1"} | settings
        with self._patch.context() as patch:
            for name, value in values.items():
                patch.setenv(f"METER_{name.upper()}", str(value))
            patch.delenv("ROUTERHUB_API_KEY", raising=False)
            patch.setattr("sys.argv", ["meter", "doctor", *options])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return int(ended.value.code or 0), self._capture.readouterr().out

    def checks(self, **settings: object) -> tuple[int, dict[str, Any]]:
        """Return the exit status, and the checks by their names."""
        status, out = self.examine("--json", **settings)
        return status, {check["name"]: check for check in json.loads(out)["checks"]}


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """Give a doctor of a data directory that is not there yet."""
    return Doctor(monkeypatch, capsys, tmp_path)


@contextmanager
def upstream(status: int, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """Run an upstream that answers with a status; yields its port, and the credentials that it got."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer."""
            seen.append(f"{self.path} {self.headers.get('authorization')}")
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_well(doctor: Doctor) -> None:
    """On PostgreSQL and Redis, with an upstream that answers, every line is ok and the exit status 0."""
    doctor.data_dir.mkdir(mode=0o700)
    with services.fresh_database() as url, upstream(200) as (port, seen):
        database = Database(url)
        bring_up_to_date(database)
        check_pepper(database, PEPPER.encode())
        database.dispose()
        status, checks = doctor.checks(
            database_url=url,
            pepper=PEPPER,
            redis_url=services.redis_url(),
            upstream_url=f"http://127.0.0.1:{port}/v1",
            upstream_api_key=API_KEY,
            connections_max=100,
            requests_max=100,
        )
        wrong, with_other = doctor.checks(database_url=url, pepper="q" * 32)

    assert status == 0, checks
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert checks.keys() == {
        "configuration",
        "descriptors",
        "data directory",
        "disk",
        "journal",
        "database",
        "clock",
        "migrations",
        "pepper",
        "redis",
        "upstream 127.0.0.1",
    }
    assert seen == [f"/v1/models Bearer {API_KEY}"]
    assert (wrong, with_other["pepper"]["state"]) == (1, "fail")


def test_nothing_is_made(doctor: Doctor) -> None:
    """Before the first start it says what is missing, and makes neither directory nor database."""
    status, checks = doctor.checks()

    assert checks["data directory"]["state"] == checks["database"]["state"] == "warn"
    assert status == 1
    assert checks["upstream 127.0.0.1"]["state"] == "fail"
    assert not doctor.data_dir.exists()


def test_a_table_for_people(doctor: Doctor) -> None:
    """Each line begins with its state, and what is not well is followed by what to do."""
    _, out = doctor.examine()

    assert "ok    configuration: can be used; upstreams: 127.0.0.1\n" in out
    assert "is not there yet\n      -> 'meter serve' makes it" in out


def test_what_is_wrong_is_named(doctor: Doctor) -> None:
    """A database, a Redis and an upstream that are away, and a name that does not exist: a line each."""
    doctor.data_dir.mkdir(mode=0o755)
    doctor.data_dir.chmod(0o755)
    status, checks = doctor.checks(
        database_url="postgresql://meter:hunter2-secret@127.0.0.1:9/meter",
        pepper=PEPPER,
        redis_url="redis://:hunter2-secret@127.0.0.1:9/0",
        upstream_url="https://upstream.invalid/v1",
    )

    assert status == 1
    states = {name: check["state"] for name, check in checks.items()}
    assert states["database"] == states["upstream upstream.invalid"] == "fail"
    assert states["redis"] == states["data directory"] == "warn"
    assert "is not found" in checks["upstream upstream.invalid"]["seen"]
    assert "hunter2" not in json.dumps(checks)


@pytest.mark.parametrize(("answer", "state"), [(401, "fail"), (404, "warn"), (500, "warn")])
def test_an_upstream_that_answers_otherwise(doctor: Doctor, answer: int, state: str) -> None:
    """A refused key fails, and no list of models is worth a look; the key is nowhere in what is printed."""
    with upstream(answer) as (port, _):
        _, out = doctor.examine(upstream_url=f"http://127.0.0.1:{port}/v1", upstream_api_key=API_KEY)

    assert f"{state:<4}  upstream 127.0.0.1: answers; /models says {answer}" in out
    assert API_KEY not in out


def test_a_certificate_of_nobody(doctor: Doctor, tmp_path: Path) -> None:
    """TLS that cannot be verified fails, and says so; the key was not sent."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    files = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost")
    subprocess.run(["openssl", "req", "-x509", *kind, *files], capture_output=True, check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with upstream(200, tls) as (port, seen):
        _, checks = doctor.checks(upstream_url=f"https://localhost:{port}/v1", upstream_api_key=API_KEY)

    assert checks["upstream localhost"]["state"] == "fail"
    assert "certificate" in checks["upstream localhost"]["advice"]
    assert seen == []


def test_faults_of_the_configuration(doctor: Doctor) -> None:
    """Each fault is a line, and nothing else is looked at."""
    status, out = doctor.examine(port="x", workers="0")

    assert status == 1
    assert out.count("fail  configuration: METER_") == 2


def test_a_database_of_a_newer_meter(doctor: Doctor) -> None:
    """Tables that this meter has no migration to are a failure, since it must not run on them."""
    doctor.data_dir.mkdir(mode=0o700)
    database = Database(f"sqlite:///{doctor.data_dir / 'meter.db'}")
    bring_up_to_date(database)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.dispose()

    status, checks = doctor.checks()

    assert (status, checks["migrations"]["state"]) == (1, "fail")
    assert checks["pepper"]["advice"].startswith("put it back")
