"""The admin token is long, whoever made it: a short one keeps a server from starting (T8)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import server, wire
from tests.server import Meter


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (it must not bind)
def test_a_short_admin_token_in_the_data_directory_is_refused(tmp_path: Path, host: str) -> None:
    """What somebody wrote into the file counts as little as what somebody set."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    (data_dir / "admin-token").write_text("sk-1234\n")

    command = [
        sys.executable,
        "-m",
        "meter",
        "serve",
        "--port",
        "0",
        "--admin-port",
        "0",
        "--admin-host",
        host,
    ]
    environment = server.environment(data_dir, upstream_url="http://127.0.0.1:9/v1")
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=wire.SECONDS_MAX,
        cwd=tmp_path,
    )

    assert done.returncode != 0
    assert "admin token" in done.stderr
    assert "sk-1234" not in done.stderr


def test_the_token_that_is_made_is_long(meter: Meter) -> None:
    """Nobody guesses 256 bits."""
    assert len(meter.admin_token) >= 43
