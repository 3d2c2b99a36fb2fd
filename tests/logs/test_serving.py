"""A server's log: requests only when asked for, nothing of their content, and a stuck pipe stops nothing."""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import server, wire

F_SETPIPE_SZ = 1031
CANARY = "canary-of-a-prompt"


def lines(path: Path, message: str) -> list[dict[str, Any]]:
    """Return the lines of a log that say something; every line of it is JSON."""
    found = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    return [line for line in found if line["message"] == message]


def test_requests_are_logged_when_asked_for(tmp_path: Path) -> None:
    """With `METER_ACCESS_LOG=on` each request is a line with its ids and numbers; refusals are lines too."""
    hostile = 'gpt" , "level":"error'
    body = wire.chat(
        model=hostile, messages=[{"role": "user", "content": CANARY}], user="somebody@example.com"
    )
    with server.running(tmp_path / "data", "--sample", access_log="on") as meter:
        answer = wire.post(meter.url, meter.first_key, body)
        wire.post(meter.url, "sk-not-a-key-of-ours", body)
        (requested,) = server.until(lambda: lines(meter.log, "request"), "the request's line")
        (refused,) = server.until(lambda: lines(meter.log, "refused"), "the refusal's line")
        text = meter.log.read_text()

    assert requested["event_id"] == answer.header("x-meter-request-id")
    assert (requested["outcome"], requested["status"], requested["team"]) == ("ok", 200, "default")
    assert requested["key_id"] == meter.first_key.split("_")[1]
    assert requested["model_requested"] == hostile
    assert requested["prompt_tokens"] > 0
    assert requested["duration_ms"] >= 0
    assert (refused["code"], refused["status"]) == ("invalid_api_key", 401)
    for secret in (CANARY, "somebody", meter.first_key.split("_")[2], "not-a-key-of-ours", meter.admin_token):
        assert secret not in text


def test_a_stuck_pipe_stops_nothing(tmp_path: Path) -> None:
    """Nobody reads the log, its pipe is full, and every request is answered; the end is clean."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    data_dir = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "meter", "serve", "--sample", "--port", "0", "--admin-port", "0"],
        env=server.environment(data_dir, access_log="on"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    assert process.stdout is not None
    notes = "".join(iter(process.stdout.readline, "\n"))
    while "curl" not in notes:
        notes += process.stdout.readline()
    found = re.search(r"proxy +(http://\S+/v1)", notes), re.search(r"mtr_\w+", notes)
    assert found[0] is not None
    assert found[1] is not None

    statuses = [wire.post(found[0][1], found[1][0], wire.chat()).status for _ in range(20)]
    process.terminate()

    assert statuses == [200] * 20
    assert process.wait(server.WAIT_SECONDS_MAX) == 0
    process.stdout.close()
    os.close(reading)
