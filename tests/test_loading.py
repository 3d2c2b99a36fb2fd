"""What a server holds in memory of its libraries: nothing that it does not need while it serves."""

import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from meter import cli
from tests import server
from tests.databases import new_sqlite

# Each takes from one to ten megabytes, and is needed by commands, by pages, or with another database.
SELDOM = (
    "alembic",
    "attr",
    "genai_prices",
    "jinja2",
    "limits",
    "lxml",
    "mako",
    "psycopg",
    "psycopg_binary",
    "pydantic",
    "pygal",
    "pygments",
    "redis",
    "rich",
)
# Python runs it before anything else.
_NOTE_MODULES = """
import atexit, pathlib, sys

atexit.register(lambda: pathlib.Path({noted!r}).write_text("\\n".join(sys.modules)))
"""
_BODY = {"model": "anthropic/claude-sonnet-4", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
def serving(tmp_path: Path) -> server.Meter:
    """Start a server that writes down in the end what it has loaded."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    new_sqlite(data_dir / "meter.db")
    (tmp_path / "sitecustomize.py").write_text(_NOTE_MODULES.format(noted=str(tmp_path / "modules")))
    env = server.environment(data_dir) | {"PYTHONPATH": str(tmp_path)}
    return server.Meter(data_dir, env, ["--sample"])


def _loaded(meter: server.Meter) -> set[str]:
    assert meter.stop() == 0, meter.log.read_text()
    return set((meter.data_dir.parent / "modules").read_text().split())


def _use(meter: server.Meter) -> None:
    """Send requests of every kind that programs send all the time."""
    key = meter.first_key
    with httpx.Client(
        headers={"authorization": f"Bearer {key}"}, trust_env=False, verify=server.NO_TLS
    ) as client:
        for stream in (False, True):
            answer = client.post(f"{meter.url}/chat/completions", json=_BODY | {"stream": stream})
            assert answer.status_code == httpx.codes.OK, answer.text
    with meter.control as control:
        for path in ("/metrics", "/api/v1/keys", "/api/v1/reports", "/api/v1/openapi.json"):
            assert control.get(path).status_code == httpx.codes.OK, path
    meter.events(key, 2)


def test_a_server_loads_nothing_that_it_seldom_needs(serving: server.Meter) -> None:
    """After requests, a look at metrics and an admin's questions, no seldom needed library is there."""
    _use(serving)

    loaded = _loaded(serving)

    assert "litestar" in loaded
    assert not loaded.intersection(SELDOM)


def test_a_page_loads_what_draws_it(serving: server.Meter) -> None:
    """A server whose page is looked at loads its templates then."""
    with serving.control as control:
        assert control.get("/sign-in").status_code == httpx.codes.OK

    assert "jinja2" in _loaded(serving)


def test_an_error_of_sqlite_is_told_apart_without_psycopg(tmp_path: Path) -> None:
    """Where PostgreSQL's driver is not loaded, a failing statement says what it means, and loads nothing."""
    program = f"""
import sys, sqlalchemy as sa
from meter.store.database import Database, RowRefused
from meter.store.tables import teams
database = Database("{new_sqlite(tmp_path / "meter.db")}")
try:
    with database.write() as connection:
        connection.execute(sa.insert(teams).values(id=None, name=None))
except RowRefused:
    print("refused", "psycopg" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout.split() == ["refused", "False"], done.stderr


def test_help_loads_no_command() -> None:
    """`meter --help` needs neither the database nor the settings."""
    program = (
        "import sys; from meter.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True, timeout=60
    )

    assert "serve" in done.stdout
    assert not {"sqlalchemy", "msgspec", "meter.settings", "meter.cli.serve"}.intersection(
        done.stderr.split()
    )


def test_the_list_of_commands_says_what_each_says_itself() -> None:
    """What `meter --help` says of a command is how its own help begins; hidden commands are not listed."""
    context = click.Context(cli.meter)
    for name, told in cli.COMMANDS.items():
        command = cli.meter.get_command(context, name)
        assert command is not None
        assert not command.hidden
        assert (command.help or "").split("\n")[0] == told
    for name in cli.HIDDEN:
        command = cli.meter.get_command(context, name)
        assert command is not None
        assert command.hidden
    listed = CliRunner().invoke(cli.meter, ["--help"], terminal_width=80).output.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")] == list(cli.COMMANDS)
