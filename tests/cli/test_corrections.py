"""The story of a price that arrives late, as somebody lives it: rated again, explained, closed, verified."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meter import cli
from meter.cli.migrations import bring_up_to_date
from meter.core.attempts import Attempt
from meter.core.prices import Price, Rates
from meter.journal.folder import Folder
from meter.journal.records import Intent, Settle, encode
from meter.journal.segment import frame
from meter.store import ledger, prices
from meter.store.database import Database
from tests import services
from tests.cli.test_commands import make

AUGUST = datetime(2026, 8, 12, 10, tzinfo=UTC)
SINCE = ("--since", "2026-08-01", "--until", "2026-09-01")
Done = subprocess.CompletedProcess[str]
EVENTS = [make(number, started_at=AUGUST, model_requested="new-model") for number in range(1, 4)]


class Books:
    """A data directory, a database of either kind, and commands on both."""

    def __init__(self, data_dir: Path, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.data_dir = data_dir
        self.url = url
        self.database = Database(url)
        bring_up_to_date(self.database)

    def run(self, *arguments: str) -> Done:
        """Run a command in this process, since a story takes many of them."""
        umask = os.umask(0o077)
        self._capture.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["meter", *arguments])
            patch.chdir(self.data_dir)
            for name in [name for name in os.environ if name.startswith(("METER_", "ROUTERHUB_"))]:
                patch.delenv(name)
            patch.setenv("METER_DATA_DIR", str(self.data_dir))
            patch.setenv("METER_DATABASE_URL", self.url)
            patch.setenv("METER_PEPPER", "p" * 32)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        os.umask(umask)
        return Done(arguments, int(ended.value.code or 0), *self._capture.readouterr())

    def succeed(self, *arguments: str) -> str:
        """Run a command that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command that prints JSON."""
        return json.loads(self.succeed(*arguments))

    def set_price(self, prompt: int, completion: int) -> None:
        """Add a version for the new model."""
        version = Price(
            id=0,
            catalog="",
            model="new-model",
            effective_from=datetime(2026, 1, 1, tzinfo=UTC),
            rates=Rates(prompt=prompt, completion=completion),
            source="set",
            created_at=AUGUST,
            created_by="somebody@host",
        )
        prices.add(self.database, [version])


@pytest.fixture(params=["sqlite", "postgres"])
def books(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Books]:
    """Give empty books of either kind."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if request.param == "sqlite":
        found = Books(data_dir, f"sqlite:///{data_dir / 'meter.db'}", capsys)
        yield found
        found.database.dispose()
        return
    with services.fresh_database() as url:
        found = Books(data_dir, url, capsys)
        yield found
        found.database.dispose()


def test_the_story_of_a_late_price(books: Books) -> None:
    """Unknown model, price, corrections, nothing twice, closed month, another price: all sums agree."""
    ledger.append(books.database, EVENTS, AUGUST)
    one = EVENTS[0].event_id
    unexplained = books.succeed("explain", one)
    assert "unpriced: the book has no price for new-model at 2026-08-12T10:00:00Z" in unexplained
    assert "meter prices set" in unexplained

    books.set_price(3_000_000, 15_000_000)
    dry = books.json("prices", "reprice", *SINCE, "--format", "json")
    applied = books.json("prices", "reprice", *SINCE, "--format", "json", "--apply")
    assert (dry["applied"], applied["applied"]) == (False, True)
    assert dry["rows"] == applied["rows"]
    assert applied["rows"] == [
        {
            "day": "2026-08-12",
            "team": "team",
            "team_id": "team",
            "model": "new-model",
            "events": 3,
            "unpriced_before": 3,
            "old_cost_usd": None,
            "new_cost_usd": "0.000315",
            "difference_usd": "0.000315",
        }
    ]
    assert "No difference" in books.succeed("prices", "reprice", *SINCE, "--apply")

    closed = books.succeed("close", "2026-08")
    assert "2026-08 is closed" in closed
    assert "3 requests, 0.000315 USD" in closed
    books.set_price(2_000_000, 15_000_000)
    arguments = ("prices", "reprice", *SINCE, "--model", "new*", "--reason", "new contract", "--apply")
    printed = books.succeed(*arguments)
    assert "Corrections appended: 3." in printed
    assert "corrections of closed months, which count when they are posted: 3, -0.000030 USD" in printed

    august = books.json("report", "--format", "json", *SINCE)["total"]
    assert (august["cost_usd"], august["unpriced_requests"]) == ("0.000315", 0)
    now = books.json("report", "--format", "json", "--since", "2026-09-01")["total"]
    assert (now["requests"], now["cost_usd"], now["corrections"]) == (0, "-0.000030", 3)
    table = books.succeed("report", "--since", "2026-08-01")
    assert "of it corrections of closed months: 3, USD -0.000030" in table

    explained = books.json("explain", one, "--json")
    assert explained["cost_usd"] == "0.000095"
    assert [each["difference_usd"] for each in explained["corrections"]] == ["0.000105", "-0.000010"]
    assert [each["reason"] for each in explained["corrections"]] == ["re-rated", "new contract"]
    by_correction = books.json("explain", explained["corrections"][1]["event_id"], "--json")
    assert by_correction == explained
    shown = books.succeed("explain", one)
    assert re.search(r"prompt +10 +2\.000000 a million +0\.000020", shown)
    assert "cost now, USD         0.000095" in shown
    assert books.succeed("verify") == "ok\n"


@pytest.fixture
def sqlite_books(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Books]:
    """Give empty books on SQLite."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    found = Books(data_dir, f"sqlite:///{data_dir / 'meter.db'}", capsys)
    yield found
    found.database.dispose()


def test_what_is_refused_is_one_sentence(sqlite_books: Books) -> None:
    """What cannot be meant is refused in a sentence that says what to do."""
    sqlite_books.succeed("close", "2026-07")
    missing = "019ab1c2-0000-7000-8000-000000000000"
    refusals = [
        (
            ("prices", "reprice", "--since", "2026-08-02", "--until", "2026-08-01"),
            "must be earlier than 'until'",
        ),
        (("prices", "reprice", "--since", "2026-08-02", "--tz", "Mars/Olympus"), "unknown time zone"),
        (("prices", "reprice", "--since", "2026-08-02", "--reason", ""), "a reason has"),
        (("close", "2026-07"), "2026-07 is closed already, since "),
        (("close", "2999-01"), "2999-01 is not over: it ends at 2999-02-01T00:00Z"),
        (("close", "July"), "not a month: 'July' (use 2026-11)"),
        (("explain", "nonsense"), "not an event's id: 'nonsense'"),
        (("explain", missing), f"the ledger has no event {missing}"),
    ]
    for arguments, fault in refusals:
        done = sqlite_books.run(*arguments)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("meter: ")
        assert done.stderr.count("\n") == 1
        assert fault in done.stderr


def test_closing_warns_of_what_is_not_there_yet(sqlite_books: Books) -> None:
    """What lies in a journal, settled or not, and what has no price is named when its month closes."""
    ledger.append(sqlite_books.database, EVENTS[:2], AUGUST)
    folder = Folder(sqlite_books.data_dir / "journal" / "server-1")
    folder.path.mkdir(parents=True)
    attempt = Attempt(
        event_id=EVENTS[1].event_id,
        started_at=AUGUST,
        team_id="team",
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model="new-model",
        stream=False,
        prompt_estimate=1,
    )
    records = (Settle(EVENTS[2]), Intent(attempt), Settle(make(9)))
    folder.segment(0).write_bytes(b"".join(frame(encode(record)) for record in records))

    done = sqlite_books.run("close", "2026-08")

    assert done.returncode == 0
    assert "warning: 2 of them have no price" in done.stderr
    assert "warning: the journal of server-1 holds 2 events of 2026-08" in done.stderr
    assert "2026-08" in sqlite_books.succeed("close", "--list")
