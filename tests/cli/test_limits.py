"""`meter keys set` and `meter teams set`: what is given changes, and what cannot be read is one sentence."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result

from meter.cli import meter
from meter.core.audit import Signature
from meter.core.keys import Minting
from meter.core.limits import Limits
from meter.store import keys, teams
from meter.store.database import Database
from tests.databases import new_sqlite

BY = Signature("test", datetime(2026, 11, 25, tzinfo=UTC))


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a database with one key of one team, on which commands work."""
    monkeypatch.setenv("METER_DATA_DIR", str(tmp_path))
    database = Database(new_sqlite(tmp_path / "meter.db"))
    teams.create(database, team_id="t1", name="search", by=BY)
    minting = Minting(Random(1).choice, b"p" * 32)
    keys.issue(database, team="search", name="ci", expires_at=None, minting=minting, by=BY)
    yield database
    database.dispose()


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(meter, arguments)


def test_limits_of_a_key(database: Database) -> None:
    """Each option sets its limit, none is no limit, default takes it back, the rest stays."""
    first = run("keys", "set", "ci", "--models", "a, b/*", "--rpm", "10", "--tpm", "none")
    run("keys", "set", "ci", "--rpm", "default", "--concurrency", "2", "--stream-usage", "observe")
    second = run("keys", "set", "ci", "--stream-usage", "default")

    key = keys.find(database, "ci")
    assert first.exit_code == second.exit_code == 0
    assert "limits a, b/*; 10 requests/min; any tokens/min" in first.output
    assert key.limits == Limits(models=("a", "b/*"), tpm=0, concurrency=2)
    assert key.stream_usage is None
    assert "2 at once" in run("keys", "list").output


def test_limits_of_a_team(database: Database) -> None:
    """A team has the same options, and its list shows what is set."""
    changed = run("teams", "set", "search", "--models", "openai/*", "--tpm", "5000")

    assert changed.exit_code == 0
    assert teams.find(database, "search").limits == Limits(models=("openai/*",), tpm=5000)
    assert "5000 tokens/min" in run("teams", "list").output


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("keys", "set", "ci"), "--models, --rpm, --tpm, --concurrency, --stream-usage"),
        (("teams", "set", "search"), "--models, --rpm, --tpm, --concurrency"),
        (("keys", "set", "ci", "--rpm", "ten"), "--rpm takes a whole number, none or default, not 'ten'"),
        (("keys", "set", "ci", "--rpm", "-1"), "--rpm takes"),
        (("keys", "set", "ci", "--tpm", "9999999999999"), "'tpm' must be a whole number"),
        (("keys", "set", "ci", "--models", "gpt-*"), "'models' takes exact names"),
        (("keys", "set", "ci", "--models", "none"), "default for every model"),
    ],
)
def test_what_cannot_be_kept_is_said(database: Database, arguments: tuple[str, ...], fault: str) -> None:
    """The sentence names the option."""
    done = run(*arguments)

    assert done.exit_code != 0
    assert fault in str(done.exception)
