"""Schemathesis makes up requests from the description of the admin API, and finds nothing in the answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import server
from tests.server import Meter

pytestmark = pytest.mark.long
# `make fuzz` asks for many more.
EXAMPLES = int(os.environ.get("METER_TEST_EXAMPLES", "5"))
SECONDS_MAX = 600 + 10 * EXAMPLES
# What a schema cannot say (a time to come, printable names, no models at all) is refused with 400; and what
# is revoked is no longer good for anything, but does not cease to be listed.
CHECKS_LEFT_OUT = "positive_data_acceptance,use_after_free"


def test_made_up_requests_find_nothing(tmp_path: Path) -> None:
    """No made-up request gets an answer that is no answer of the description, or that is a fault."""
    # A server of its own, because it changes whatever it finds.
    with server.running(tmp_path / "data", "--sample") as meter:
        done = made_up_requests(meter, tmp_path)

    assert done.returncode == 0, done.stdout
    assert "No test cases were generated" not in done.stdout


def made_up_requests(meter: Meter, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Schemathesis against a server."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{meter.control_url}/api/v1/openapi.json",
        "--header",
        f"Authorization: Bearer {meter.admin_token}",
        "--max-examples",
        str(EXAMPLES),
        "--seed",
        "1",
        "--exclude-checks",
        CHECKS_LEFT_OUT,
        "--continue-on-failure",
        "--no-color",
    ]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
