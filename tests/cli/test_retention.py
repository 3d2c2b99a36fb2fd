"""The story of events that get old: shown first, removed when told to, and asked for afterwards."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meter.cli.migrations import bring_up_to_date
from meter.core.retention import label, wanted_horizon
from meter.store import ledger, retention
from meter.store.database import Database
from tests import server
from tests.cli.test_commands import make
from tests.cli.test_corrections import Books

OLD = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)


def recent() -> datetime:
    """Return an instant that no retention removes."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def books(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Books]:
    """Give books with two events of long ago and one of now."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    found = Books(data_dir, f"sqlite:///{data_dir / 'meter.db'}", capsys)
    made = [make(1, started_at=OLD), make(2, started_at=OLD), make(3, started_at=recent())]
    ledger.append(found.database, made, recent())
    yield found
    found.database.dispose()


def test_events_get_old(books: Books) -> None:
    """A dry run shows what leaves, `--apply` removes it, and every command knows of it afterwards."""
    since = ("--since", "2024-02-01")
    before = books.json("report", "--format", "json", *since)
    old_id = make(1).event_id

    idle = books.succeed("retention")
    assert "METER_RETENTION_MONTHS is not set, so that everything is kept" in idle
    dry = books.succeed("retention", "--months", "3")
    assert "2024-02" in dry
    assert "Nothing has been changed; --apply removes these events for good." in dry
    assert books.succeed("verify") == "ok\n"
    applied = books.json("retention", "--months", "3", "--apply", "--format", "json")
    horizon = label(wanted_horizon(recent(), 3))
    assert applied == {
        "applied": True,
        "horizon": horizon,
        "wanted": horizon,
        "months": [{"label": "2024-02", "events": 2}],
        "events": 2,
    }

    assert "No event leaves." in books.succeed("retention", "--months", "3", "--apply")
    assert books.succeed("verify") == f"ok\ncompared from {horizon} on, where the ledger begins\n"
    assert books.json("report", "--format", "json", *since) == before
    assert "ledger.retain" in books.succeed("audit")
    refusals = [
        ("report", "--by", "user", *since, "--until", "2024-03-01"),
        ("report", "--format", "focus", *since, "--until", "2024-03-01"),
        ("prices", "reprice", *since),
        ("explain", old_id),
        ("close", "2024-02"),
    ]
    for arguments in refusals:
        done = books.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert horizon in done.stderr, arguments


def test_a_bill_from_before_the_horizon_is_refused(books: Books, tmp_path: Path) -> None:
    """Reconciling says where the ledger begins, with the exit status of a file that cannot be used."""
    bill = tmp_path / "bill.csv"
    bill.write_text("day,model,prompt_tokens,completion_tokens,cost_usd\n2024-02-29,model,1,1,1\n")
    books.succeed("retention", "--months", "3", "--apply")

    done = books.run("reconcile", str(bill))

    assert done.returncode == 2
    assert "the ledger begins at" in done.stderr


def test_removing_needs_to_know_how_long_events_are_kept(books: Books) -> None:
    """Without a number nothing is removed."""
    done = books.run("retention", "--apply")

    assert (done.returncode, done.stdout) == (1, "")
    assert "give --months or set METER_RETENTION_MONTHS" in done.stderr


def test_a_server_does_it_by_itself(tmp_path: Path) -> None:
    """With the setting, `meter serve` removes what is too old, and keeps what is not."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    database = Database(f"sqlite:///{data_dir / 'meter.db'}")
    bring_up_to_date(database)
    ledger.append(database, [make(1, started_at=OLD), make(2, started_at=recent())], recent())

    with server.running(data_dir, "--sample", retention_months=12):
        server.until(lambda: ledger.find(database, make(1).event_id) is None, "the old event to leave")

    assert ledger.find(database, make(2).event_id) is not None
    assert retention.begins(database) == wanted_horizon(recent(), 12)
    database.dispose()
