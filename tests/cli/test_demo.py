"""`meter demo`, started for real."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from meter.app.made_up import HABITS
from tests.server import WAIT_SECONDS_MAX, environment, until

END_OF_NOTES = "Ctrl-C"


@contextmanager
def demonstration(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demonstration whose temporary files are in a folder; nothing around it configures it."""
    (folder / "tmp").mkdir()
    (folder / "meter.toml").write_text('port = "no number"\n')
    env = environment(folder / "elsewhere", port="no number") | {"TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "meter", "demo", "--admin-port", "0", *arguments]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str], mark: str) -> str:
    """Read what is printed until a line has a mark."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def stop(process: subprocess.Popen[str], number: int, folder: Path) -> None:
    """Stop it; nothing is left of it but a sentence."""
    process.send_signal(number)
    rest, _ = process.communicate(timeout=WAIT_SECONDS_MAX)
    log = (folder / "log").read_text()
    assert process.returncode == 0, log
    assert "Traceback" not in rest + log
    assert list((folder / "tmp").iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"log", "meter.toml", "tmp"}


def test_a_demonstration(tmp_path: Path) -> None:
    """It shows three teams and a month of all kinds of events, goes on with requests, and leaves nothing."""
    with demonstration(tmp_path, "--port", "0") as process:
        notes = read(process, END_OF_NOTES)
        page, token, key = (
            re.search(pattern, notes)[1]  # type: ignore[index]
            for pattern in (r"spend page +(\S+)/spend", r"sign in with (\S+)", r"a key +(\S+)")
        )
        proxy = re.search(r"proxy +(\S+)", notes)[1]  # type: ignore[index]
        with httpx.Client(
            base_url=page,
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=WAIT_SECONDS_MAX,
        ) as client:
            found = client.get("/api/v1/reports", params={"by": "team", "since": "2020-01-01"}).json()
            standing = client.get("/api/v1/budgets").json()["data"]
            refused = client.get("/api/v1/reports/refusals", params={"since": "2020-01-01"}).json()
            signing_in = client.get("/spend", follow_redirects=True)
            until(
                lambda: (
                    client.get("/api/v1/reports", params={"by": "team", "since": "2020-01-01"}).json()[
                        "total"
                    ]["requests"]
                    > found["total"]["requests"]
                ),
                "requests that keep coming",
            )
        answer = httpx.post(
            f"{proxy}/chat/completions",
            json={"model": "openai/gpt-4.1", "messages": []},
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=WAIT_SECONDS_MAX,
        )
        stop(process, signal.SIGINT, tmp_path)

    assert {row["team"] for row in found["rows"]} == {habit.team for habit in HABITS}
    for column in ("errors", "cached_tokens", "reasoning_tokens", "estimated_requests", "unpriced_requests"):
        assert found["total"][column] > 0, column
    assert found["total"]["corrections"] > 0
    assert len(standing) >= 3
    assert refused["total"]["count"] > 0
    assert signing_in.status_code == 200
    assert answer.status_code == 200, answer.text


def test_a_demonstration_that_is_stopped_at_once(tmp_path: Path) -> None:
    """Killed while it makes things up, it ends as cleanly."""
    with demonstration(tmp_path, "--no-traffic") as process:
        read(process, "making up")
        stop(process, signal.SIGTERM, tmp_path)
