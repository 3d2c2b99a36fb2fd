"""The commands, as somebody types them; servers and the first command line in processes of their own."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.core.keys import well_formed
from meter.core.reports import COLUMNS
from meter.store import ledger
from meter.store.database import Database
from meter.store.tables import usage_15m
from tests import server
from tests.commands import Done, invoke
from tests.databases import new_sqlite
from tests.server import Meter

OCTOBER = ("--since", "2026-10-01", "--until", "2026-11-01")
NOON = datetime(2026, 10, 21, 12, tzinfo=UTC)
EX_CONFIG = 78


def typed(data_dir: Path, *arguments: str, **settings: object) -> Done:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "meter", *arguments],
        env=server.environment(data_dir, **settings),
        cwd=data_dir.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def succeed(data_dir: Path, *arguments: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = invoke(data_dir, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(number: int, **fields: object) -> UsageEvent:
    """Make an event."""
    values: dict[str, object] = {
        "event_id": uuid7(number, number.to_bytes(10, "big")),
        "started_at": NOON,
        "team_id": "team",
        "key_id": "key",
        "route": "chat.completions",
        "upstream": "upstream",
        "model_requested": "model",
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


def write(data_dir: Path, *events: UsageEvent) -> None:
    """Put events into the ledger."""
    database = Database(f"sqlite:///{data_dir / 'meter.db'}")
    ledger.append(database, events, NOON)
    database.dispose()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Give a data directory with an empty database."""
    made = tmp_path / "data"
    made.mkdir()
    new_sqlite(made / "meter.db")
    return made


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a data directory with a key and some events of October, which nobody changes."""
    made = tmp_path_factory.mktemp("books") / "data"
    succeed(made, "db", "upgrade")
    succeed(made, "teams", "create", "search")
    key = json.loads(succeed(made, "keys", "create", "--team", "search", "--name", "ci", "--json"))
    write(
        made,
        make(1, key_id=key["id"], cost=123_000_000),
        make(2, key_id=key["id"], cost=1),
        make(3, key_id=key["id"], model_served="unpriced", usage_source=UsageSource.ESTIMATED),
        make(4, started_at=NOON - timedelta(days=300), cost=1),
    )
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter with the sample provider."""
    with server.running(tmp_path_factory.mktemp("running") / "data", "--sample") as meter:
        yield meter


def test_a_team_is_made_and_listed(data_dir: Path) -> None:
    """A new team is shown with its id, and stands in the list."""
    made = succeed(data_dir, "teams", "create", "  search ")

    listed = succeed(data_dir, "teams", "list")

    assert made.startswith("team search (")
    team_id = made.split("(")[1].split(")")[0]
    assert f"{team_id}   search" in listed


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("teams", "create", "search"), "already"),
        (("teams", "create", " "), "printable characters"),
        (("teams", "create", "a\nb"), "printable characters"),
        (("keys", "create", "--team", "nobody"), "meter teams create nobody"),
        (("keys", "create", "--team", "search", "--name", "a\x1b[31m"), "printable characters"),
        (("keys", "create", "--team", "search", "--expires", "soon"), "not a duration"),
        (("keys", "create", "--team", "search", "--expires", "0d"), "not a duration"),
        (("keys", "list", "--team", "nobody"), "no team 'nobody'"),
        (("keys", "revoke", "nobody"), "no key 'nobody'"),
        (("report", "--by", "planet"), "cannot group by planet"),
        (("report", "--tz", "Mars/Olympus"), "unknown time zone"),
        (("report", "--since", "yesterday"), "not a date"),
        (("report", "--since", "2026-10-02", "--until", "2026-10-01"), "ends before it begins"),
        (("keys", "create", "--team", "search", "--expires", "99999999999d"), "meter: "),
        # BUG: now + duration raises OverflowError, which main() does not catch: a traceback.
        (("keys", "create", "--team", "search", "--expires", "9999999d"), "meter: "),
        (("report", "--since", "0001-01-01", "--tz", "Asia/Kolkata"), "meter: "),
    ],
)
def test_what_is_refused_is_one_sentence(books: Path, arguments: tuple[str, ...], fault: str) -> None:
    """A refusal is one sentence on standard error and the status 1, never a traceback."""
    done = invoke(books, *arguments)

    assert done.returncode == 1
    assert done.stderr.startswith("meter: ")
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_new_key_for_a_program(data_dir: Path) -> None:
    """`keys create --json` prints exactly the documented members, the key among them."""
    succeed(data_dir, "teams", "create", "search")

    printed = succeed(data_dir, "keys", "create", "--team", "search", "--name", "ci", "--json")

    made: dict[str, Any] = json.loads(printed)
    assert set(made) == {"id", "key", "team", "name", "expires_at"}
    assert well_formed(made["key"])
    assert made["key"].split("_")[1] == made["id"]
    assert (made["team"], made["name"], made["expires_at"]) == ("search", "ci", None)


def test_a_new_key_for_a_person(data_dir: Path) -> None:
    """Without `--json` the first line is the key alone, so that a shell can take it."""
    succeed(data_dir, "teams", "create", "search")

    first, second = succeed(data_dir, "keys", "create", "--team", "search").splitlines()

    assert well_formed(first)
    assert "not shown again" in second


def test_a_key_may_expire(data_dir: Path) -> None:
    """`--expires` is counted from now, and the list shows when."""
    succeed(data_dir, "teams", "create", "search")
    arguments = ("keys", "create", "--team", "search", "--expires", "90d", "--json")

    made = json.loads(succeed(data_dir, *arguments))

    expires_at = datetime.fromisoformat(made["expires_at"])
    assert timedelta(days=89, hours=23) < expires_at - datetime.now(UTC) <= timedelta(days=90)
    assert f"{expires_at:%Y-%m-%dT%H:%M}" in succeed(data_dir, "keys", "list")


def test_a_key_is_listed_without_its_secret_and_revoked(data_dir: Path) -> None:
    """The list shows ids and states, never a secret; a key is revoked by name, by id or by itself."""
    succeed(data_dir, "teams", "create", "search")
    names = ("by-name", "by-id", "by-key")
    made = {
        name: json.loads(succeed(data_dir, "keys", "create", "--team", "search", "--name", name, "--json"))
        for name in names
    }
    before = succeed(data_dir, "keys", "list")

    references = ("by-name", made["by-id"]["id"], made["by-key"]["key"])
    printed = [succeed(data_dir, "keys", "revoke", reference) for reference in references]

    after = succeed(data_dir, "keys", "list", "--team", "search")
    assert all(f"{name} ({made[name]['id']})" in text for name, text in zip(names, printed, strict=True))
    assert before.count("in use") == 3
    assert after.count("revoked") == 3
    for key in made.values():
        assert key["id"] in after
        assert key["key"].split("_")[2] not in before + after + "".join(printed)


def test_a_report_as_json(books: Path) -> None:
    """A report for programs has the documented shape, and names the key beside its id."""
    report = json.loads(succeed(books, "report", "--format", "json", "--by", "key,model", *OCTOBER))

    assert set(report) == {"rows", "total"}
    assert [set(row) for row in report["rows"]] == [{"key", "key_id", "model", *COLUMNS}] * 2
    priced, unpriced = report["rows"]
    assert (priced["key"], priced["model"], priced["requests"]) == ("ci", "model", 2)
    assert (priced["total_tokens"], priced["cost_usd"]) == (30, "0.000123000001")
    assert (unpriced["model"], unpriced["cost_usd"], unpriced["unpriced_requests"]) == ("unpriced", None, 1)
    assert unpriced["estimated_requests"] == 1
    assert report["total"]["requests"] == 3


def test_a_report_as_csv(books: Path) -> None:
    """A report for spreadsheets has a line of names, and an empty cell where a cost is unknown."""
    printed = succeed(books, "report", "--format", "csv", "--by", "key,model", *OCTOBER)

    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["key", "key_id", "model", *COLUMNS]
    assert [(row["key"], row["model"], row["cost_usd"]) for row in rows] == [
        ("ci", "model", "0.000123000001"),
        ("ci", "unpriced", ""),
    ]


def cells_of(printed: str) -> list[list[str]]:
    """Return the cells of a table, without its bars."""
    blocks = set("█▉▊▋▌▍▎▏▐▕")
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    return [[cell for cell in line if not set(cell) <= blocks] for line in lines]


def test_a_report_as_a_table(books: Path) -> None:
    """A report for people has a row a group and a total, and says what has no price."""
    printed = succeed(books, "report", "--by", "model", *OCTOBER)

    lines = cells_of(printed)
    assert "█" in printed
    assert ["model", "2", "20", "0", "10", "0", "0.000123000001", "0.0%"] in lines
    assert ["unpriced", "1", "10", "0", "5", "0", "unpriced", "100.0%"] in lines
    assert ["total", "3", "30", "0", "15", "0", "0.000123000001", "+", "1", "unpriced", "33.3%"] in lines


def test_drift_is_shown_where_upstreams_tell_costs(data_dir: Path) -> None:
    """The table has a column for what upstreams charge beyond our cost, if any of them tells it."""
    own = make(1, cost=1_000_000)
    told = make(2, model_served="told", cost=1_000_000, upstream_cost=3_000_000)

    write(data_dir, own)
    before = succeed(data_dir, "report", "--by", "model", *OCTOBER)
    write(data_dir, told)
    after = succeed(data_dir, "report", "--by", "model", *OCTOBER)

    assert "drift" not in before
    lines = cells_of(after)
    assert ["model", "1", "10", "0", "5", "0", "0.000001", "0.000000", "0.0%"] in lines
    assert ["told", "1", "10", "0", "5", "0", "0.000001", "0.000002", "0.0%"] in lines
    assert ["total", "2", "20", "0", "10", "0", "0.000002", "0.000002", "0.0%"] in lines


def test_a_report_by_day_in_a_zone(books: Path) -> None:
    """Bounds and days are those of the zone."""
    arguments = ("--by", "day", "--tz", "Asia/Kolkata", "--since", "2026-10-21", "--until", "2026-10-22")

    report = json.loads(succeed(books, "report", "--format", "json", *arguments))

    assert [(row["day"], row["requests"]) for row in report["rows"]] == [("2026-10-21", 3)]


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        '=HYPERLINK("http://x","y")',
        "\uff1d1",
        "\uff0b1",
        # BUG: a line feed is on OWASP's list as well.
        "\n=1",
    ],
)
def test_a_cell_is_never_a_formula(data_dir: Path, name: str) -> None:
    """What clients and admins write reaches a spreadsheet as text: no cell begins like a formula."""
    write(data_dir, make(1, end_user=name, model_served=name, tags=(name,), upstream=name, team_id=name))

    arguments = ("--by", "team,model,upstream,user,tag", *OCTOBER)
    printed = succeed(data_dir, "report", "--format", "csv", *arguments)

    header, row = csv.reader(io.StringIO(printed, newline=""))
    assert header[:5] == ["team", "model", "upstream", "user", "tag"]
    assert [cell[0] for cell in row[:5]] == ["'"] * 5
    # Pipes may turn line ends into others, so that only what is no line end is compared.
    assert [cell[1:].strip() for cell in row[:5]] == [name.strip()] * 5


@pytest.mark.parametrize(
    ("name", "shown"),
    [("[/red]", "[/red]"), (":key:", ":key:"), ("\x1b[31mred", "\\x1b[31mred"), ("a\rb", "a\\rb")],
)
def test_a_name_does_nothing_to_a_terminal(data_dir: Path, name: str, shown: str) -> None:
    """What clients call their models is shown as it is written: no markup, no colours, no cursor moved."""
    write(data_dir, make(1, model_served=name))

    printed = succeed(data_dir, "report", "--by", "model", *OCTOBER)

    assert shown in printed.split()
    assert "\x1b" not in printed


def test_verify_says_ok(books: Path) -> None:
    """Where everything agrees, `verify` prints `ok`."""
    assert succeed(books, "verify") == "ok\n"


def test_verify_says_what_does_not_agree(data_dir: Path) -> None:
    """Where a sum was changed, `verify` exits 1 and says which."""
    write(data_dir, make(1), make(2, model_requested="other"))
    database = Database(f"sqlite:///{data_dir / 'meter.db'}")
    with database.write() as connection:
        connection.execute(sa.update(usage_15m).values(prompt_tokens=usage_15m.c.prompt_tokens + 1))
    database.dispose()

    done = invoke(data_dir, "verify")

    assert done.returncode == 1
    assert done.stdout.count("prompt_tokens 11 instead of 10") == 2
    assert "ok" not in done.stdout.split()


def test_the_version_of_the_tables(data_dir: Path) -> None:
    """`db current` shows where the database is and where it should be; upgrading again changes nothing."""
    current = succeed(data_dir, "db", "current")

    database, expected = current.strip().removeprefix("database ").split(", expected ")
    assert database == expected
    assert succeed(data_dir, "db", "upgrade") == f"{expected} -> {expected}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("teams", "list"),
        ("teams", "create", "x"),
        ("keys", "list"),
        ("keys", "create", "--team", "x"),
        ("keys", "revoke", "x"),
        ("report",),
        ("verify",),
        ("db", "current"),
    ],
)
def test_without_a_database_a_command_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A command that needs a database names the place where none is, and makes none."""
    data_dir = tmp_path / "nowhere"

    done = invoke(data_dir, *arguments)

    assert done.returncode == 1
    assert f"there is no database at {data_dir / 'meter.db'}" in done.stderr
    assert "METER_DATA_DIR" in done.stderr
    assert not data_dir.exists()


@pytest.mark.parametrize("arguments", [("teams", "list"), ("report",), ("verify",)])
def test_an_older_database_is_named_as_such(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A database whose tables are not those that this meter expects is said to need an upgrade."""
    # BUG: the command ends with SQLAlchemy's traceback (no such table).
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "meter.db").touch()

    done = invoke(data_dir, *arguments)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "meter db upgrade" in done.stderr


def test_serve_without_an_upstream_says_what_to_set(tmp_path: Path) -> None:
    """With nothing configured, the server exits 78 and names every way to configure an upstream."""
    done = typed(tmp_path / "data", "serve")

    assert done.returncode == EX_CONFIG
    for named in ("ROUTERHUB_API_KEY", "METER_UPSTREAM_URL", "[[upstreams]]", "--sample"):
        assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_serve_names_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    """With several bad settings, the server exits 78 and names each of them."""
    (tmp_path / "meter.toml").write_text('nonsense = 1\nstream_usage = "sometimes"\n')
    arguments = ("serve", "--admin-port", "99999")

    done = typed(
        tmp_path / "data", *arguments, port="x", upstream_url="http://api.example.com", body_bytes_max=0
    )

    assert done.returncode == EX_CONFIG
    for named in (
        "METER_PORT",
        "METER_UPSTREAM_URL",
        "METER_BODY_BYTES_MAX",
        "--admin-port",
        "stream_usage",
        "'nonsense'",
    ):
        assert named in done.stderr
    assert done.stderr.count("\n  - ") == 6


def test_a_bad_configuration_stops_every_command(books: Path) -> None:
    """A command refuses a configuration as the server does."""
    done = invoke(books, "teams", "list", port="x")

    assert done.returncode == EX_CONFIG
    assert "METER_PORT" in done.stderr


def test_a_second_server_on_the_same_data_is_refused(running: Meter) -> None:
    """One data directory has one server; the second one says so and ends."""
    done = typed(running.data_dir, "serve", "--sample", "--port", "0", "--admin-port", "0")

    assert done.returncode == 1
    assert f"another meter already serves from {running.data_dir}" in done.stderr
    assert "mtr_" not in done.stdout
    assert running.process.poll() is None


def test_a_taken_port_is_said(running: Meter, tmp_path: Path) -> None:
    """A server that finds its port taken ends with a sentence that names the port."""
    port = running.url.split(":")[2].split("/")[0]

    done = typed(tmp_path / "data", "serve", "--sample", "--port", port, "--admin-port", "0")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"meter: cannot listen at 127.0.0.1, port {port}: ")
    assert "Traceback" not in done.stderr


def test_a_second_server_on_the_same_database_is_refused(running: Meter, tmp_path: Path) -> None:
    """One SQLite file has one server, also when the second one has another data directory."""
    # BUG: only the data directory is claimed, so that two servers work on one SQLite file.
    url = f"sqlite:///{running.data_dir / 'meter.db'}"
    arguments = ("serve", "--sample", "--port", "0", "--admin-port", "0")

    done = typed(tmp_path / "other", *arguments, database_url=url)

    assert done.returncode == 1
    assert "already" in done.stderr


def test_commands_work_beside_a_running_server(running: Meter) -> None:
    """What a command changes, the server has; what the server recorded, the command shows."""
    created = running.run("teams", "create", "beside")
    listed = running.run("keys", "list")

    with running.control as control:
        names = [team["name"] for team in control.get("/api/v1/teams").json()["data"]]
    assert created.returncode == 0, created.stderr
    assert "beside" in names
    assert "first" in listed.stdout


def chat(running: Meter, key: str, model: str) -> int:
    """Ask for a completion; returns the status."""
    answer = httpx.post(
        f"{running.url}/chat/completions",
        json={"model": model, "messages": []},
        headers={"authorization": f"Bearer {key}"},
        timeout=server.WAIT_SECONDS_MAX,
        trust_env=False,
    )
    return answer.status_code


def test_the_command_line_and_the_api_say_the_same(running: Meter) -> None:
    """One question has one answer: as JSON, CSV and FOCUS, printed and over HTTP."""
    key = running.new_key(name="=books")
    assert chat(running, key, "openai/gpt-4.1") == 200
    running.event(key)
    since, until = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (-2, 2))

    for shape, by in (("json", {"by": "team,key,model"}), ("csv", {"by": "day,key"}), ("focus", {})):
        asked = {"since": since, "until": until, "format": shape} | by
        options = [part for name, value in asked.items() for part in (f"--{name}", value)]
        printed = succeed(running.data_dir, "report", *options)
        with running.control as control:
            answered = control.get("/api/v1/reports", params=asked).text
        assert "=books" in answered
        if shape == "json":
            assert json.loads(printed) == json.loads(answered)
        else:
            assert printed.splitlines() == answered.splitlines()


def test_what_the_proxy_refuses_is_reported(running: Meter) -> None:
    """A request that meter refuses itself is no event, and is counted by key and reason."""
    key = running.new_key(name="refused")
    succeed(running.data_dir, "keys", "set", "refused", "--models", "openai/gpt-4.1")

    statuses = [chat(running, key, "anthropic/claude-sonnet-4") for _ in range(2)]

    def counted() -> list[dict[str, Any]]:
        with running.control as control:
            rows = control.get("/api/v1/reports/refusals").json()["rows"]
        return [row for row in rows if row["key"] == "refused" and row["count"] == 2]

    assert statuses == [403, 403]
    (row,) = server.until(counted, "the refusals")
    assert row["reason"] == "model_not_allowed"
    printed = succeed(running.data_dir, "report", "--refusals", "--format", "csv")
    found = [each for each in csv.DictReader(io.StringIO(printed)) if each["key"] == "refused"]
    assert found == [{name: str(value) for name, value in row.items()}]
    assert running.events(key, 0) == []


def test_how_far_an_export_is_shows_on_terminals_only(books: Path) -> None:
    """A bar on the error output of a terminal, and nothing elsewhere; the export is the same."""
    arguments = ("report", "--format", "focus", *OCTOBER)
    quiet = invoke(books, *arguments)
    shown, terminal = pty.openpty()

    done = subprocess.run(
        [sys.executable, "-m", "meter", *arguments],
        env=server.environment(books) | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        timeout=60,
        check=True,
    )

    os.close(terminal)
    assert b"reading the books" in os.read(shown, 65_536)
    os.close(shown)
    assert quiet.stderr == ""
    assert done.stdout.decode().splitlines() == quiet.stdout.splitlines()


def test_the_first_start_shows_its_secrets_once(tmp_path: Path) -> None:
    """The first start shows the admin token and a first key; the second start shows neither."""
    # BUG: stopping right after the notes were shown kills the process (status -15): the signals' handlers
    # are installed only afterwards.
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with server.running(data_dir, "--sample") as first:
        token, key, notes = first.admin_token, first.first_key, first.notes
    with server.running(data_dir, "--sample") as second:
        again = second.notes

    assert token in notes
    assert key in notes
    assert token not in again
    assert "mtr_" not in again
    assert key.split("_")[2] not in first.log.read_text()
    assert token not in first.log.read_text()


def test_the_ends_of_a_command_line(tmp_path: Path) -> None:
    """Help lists the commands."""
    printed = succeed(tmp_path / "data", "--help")

    for name in ("serve", "teams", "keys", "report", "verify", "db"):
        assert f"\n  {name} " in printed
