"""`meter reconcile`: what a finance person sees, and what a script can rely on."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from meter.cli import meter as command
from meter.core.events import UsageEvent, UsageSource
from meter.core.findings import COLUMNS
from meter.core.prices import Price, PriceBook, Rates, rate
from meter.store import ledger, prices
from meter.store.database import Database
from tests.cli.test_commands import NOON, make
from tests.databases import new_sqlite

HEADER = "day,model,prompt_tokens,completion_tokens,cost_usd"
# What a bill would have if the ledger below were right.
RIGHT = ("2026-10-21,gpt-4.1,1000,100,0.0028", "2026-10-22,gpt-4.1,1000,100,0.0028")


def version(tier: str, rates: Rates) -> Price:
    """Make a price of a tier."""
    return Price(
        id=0,
        catalog="",
        model="openai/gpt-4.1",
        service_tier=tier,
        effective_from=datetime(2020, 1, 1, tzinfo=UTC),
        rates=rates,
        source="set",
        created_at=NOON,
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a data directory with two days of a model, which nobody changes."""
    made = tmp_path_factory.mktemp("reconcile") / "data"
    made.mkdir()
    database = Database(new_sqlite(made / "meter.db"))
    full, half = (Rates(prompt=tokens, completion=4 * tokens) for tokens in (2_000_000, 1_000_000))
    prices.add(database, [version("", full), version("flex", half)])
    book = PriceBook(prices.load(database))
    ledger.append(database, [rate(event, book) for event in events()], NOON)
    database.dispose()
    return made


def events() -> Iterator[UsageEvent]:
    """Yield one event of each day, under another name of the model each."""
    counts = {"prompt_tokens": 1000, "completion_tokens": 100, "model_requested": "openai/gpt-4.1"}
    yield make(1, **counts)
    yield make(2, **counts, model_served="gpt-4.1-2025-04-14", started_at=NOON + timedelta(days=1))


def run(data_dir: Path, lines: tuple[str, ...], *arguments: str, header: str = HEADER) -> Result:
    """Run the command on a file, in this process."""
    path = data_dir / "bill.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    environment = {"METER_DATA_DIR": str(data_dir), "METER_UPSTREAM_URL": "http://127.0.0.1:9/v1"}
    return CliRunner().invoke(command, ["reconcile", str(path), *arguments], env=environment)


def test_a_right_bill(data_dir: Path) -> None:
    """A bill that agrees is told so in two lines, and the exit status is 0, whatever the names."""
    done = run(data_dir, RIGHT, "--tolerance", "0")

    assert done.exit_code == 0, done.output
    assert "Days and models: 2 ok." in done.stdout
    assert "They bill 0.005600 USD, the ledger has 0.005600 USD" in done.stdout
    assert "within the tolerance of 0" in done.stdout
    assert done.stderr == ""


def test_a_wrong_bill(data_dir: Path) -> None:
    """A bill that differs has a row for each difference with what to do, and the exit status is 1."""
    done = run(data_dir, (RIGHT[0], "2026-10-22,gpt-4.1,1000,100,0.0014", "2026-10-22,o3,1,1,3"))

    assert done.exit_code == 1
    words = done.stdout.split()
    assert {"tier", "missing_here", "3.000000", "-0.001400"} <= set(words)
    assert "Days and models: 1 ok, 1 missing_here, 1 tier." in done.stdout
    assert "what differs adds up to 3.001400 USD" in done.stdout
    assert "above the tolerance of 0.01" in done.stdout


@pytest.mark.parametrize(("tolerance", "status"), [("0.34", 0), ("0.33", 1)])
def test_the_tolerance(data_dir: Path, tolerance: str, status: int) -> None:
    """What may differ is a part of their total: here a third of it does."""
    done = run(data_dir, (RIGHT[0], "2026-10-22,gpt-4.1,1000,100,0.0014"), "--tolerance", tolerance)

    assert done.exit_code == status


def test_as_json(data_dir: Path) -> None:
    """Programs get every row, also those that are ok, and the total."""
    done = run(data_dir, RIGHT, "--format", "json")

    document = json.loads(done.stdout)
    assert [tuple(row) for row in document["rows"]] == [COLUMNS] * 2
    assert document["rows"][0]["our_models"] == ["gpt-4.1-2025-04-14", "openai/gpt-4.1"]
    assert document["total"]["within_tolerance"] is True


def test_as_csv(data_dir: Path) -> None:
    """Spreadsheets get every row; amounts stay numbers, names never become formulas."""
    done = run(data_dir, (*RIGHT, "2026-10-22,=1+1,1,1,-0.5"), "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["model"], row["class"], row["difference_cost_usd"]) for row in rows] == [
        ("gpt-4.1", "ok", "0.000000"),
        ("'=1+1", "missing_here", "-0.500000"),
        ("gpt-4.1", "ok", "0.000000"),
    ]
    assert "above the tolerance" in done.stderr


def test_the_service_tier_of_a_bill(data_dir: Path) -> None:
    """A file that names tiers is compared with those that were served."""
    lines = tuple(f"{line},{tier}" for line, tier in zip(RIGHT, ("default", "flex"), strict=True))

    done = run(data_dir, lines, "--format", "json", header=f"{HEADER},service_tier")

    assert [row["class"] for row in json.loads(done.stdout)["rows"]] == ["ok", "tier"]


def test_a_report_is_a_bill(data_dir: Path, tmp_path: Path) -> None:
    """What `meter report` writes by day and model has the columns of a bill, and agrees with the ledger."""
    environment = {"METER_DATA_DIR": str(data_dir)}
    period = ("--since", "2026-10-01", "--until", "2026-11-01")
    report = ["report", "--by", "day,model", "--format", "csv", *period]

    written = CliRunner().invoke(command, report, env=environment).stdout
    done = CliRunner().invoke(command, ["reconcile", "-", "--tolerance", "0"], input=written, env=environment)

    assert done.exit_code == 0, done.output
    assert "Days and models: 2 ok." in done.stdout


def test_every_class(tmp_path: Path) -> None:
    """Seven lines with one fault each, and one without, get the eight classes."""
    database = Database(new_sqlite(tmp_path / "meter.db"))
    flat = Rates(prompt=1_000_000, completion=1_000_000)
    names = ("ok", "price", "cached", "tier", "estimated", "tokens", "missing_there")
    flex = [version("flex", Rates(prompt=500_000, completion=500_000)), version("", flat)]
    prices.add(database, [msgspec.structs.replace(each, model=name) for name in names for each in flex])
    book = PriceBook(prices.load(database))
    used = {"prompt_tokens": 1000, "completion_tokens": 100}
    drawn = [make(number, model_requested=name, **used) for number, name in enumerate(names)]
    drawn[4] = msgspec.structs.replace(drawn[4], usage_source=UsageSource.ESTIMATED)
    ledger.append(database, [rate(event, book) for event in drawn], NOON)
    database.dispose()
    lines = (
        "2026-10-21,ok,1000,100,0,0.0011",
        "2026-10-21,price,1000,100,0,0.0012",
        "2026-10-21,cached,1000,100,400,0.0008",
        "2026-10-21,tier,1000,100,0,0.00055",
        "2026-10-21,estimated,800,90,0,0.00089",
        "2026-10-21,tokens,1100,100,0,0.0012",
        "2026-10-21,missing_here,1000,100,0,0.0011",
    )
    header = "day,model,prompt_tokens,completion_tokens,cached_tokens,cost_usd"

    done = run(tmp_path, lines, "--format", "json", header=header)

    found = {row["model"]: row["class"] for row in json.loads(done.stdout)["rows"]}
    assert found == {name: name for name in (*names, "missing_here")}


def test_days_of_another_zone(data_dir: Path) -> None:
    """Days are those of `--tz`, and the period is that of the file's days."""
    done = run(data_dir, RIGHT[:1], "--tz", "Asia/Tokyo")
    late = run(data_dir, RIGHT[:1], "--tz", "Pacific/Kiritimati")

    assert done.exit_code == 0
    assert late.exit_code == 1
    assert "missing_here" in late.stdout


def test_another_name_of_a_model(data_dir: Path) -> None:
    """A name that nobody could guess is given with `--alias`."""
    lines = tuple(line.replace("gpt-4.1", "GPT 4.1 (Nov)") for line in RIGHT)

    assert run(data_dir, lines).exit_code == 1
    assert run(data_dir, lines, "--alias", "GPT 4.1 (Nov)=gpt-4.1").exit_code == 0


def test_what_is_ignored_is_said(data_dir: Path) -> None:
    """Columns that mean nothing to meter are named on standard error, and the rest is compared."""
    done = run(data_dir, tuple(f"{line},x" for line in RIGHT), header=f"{HEADER},Region")

    assert done.exit_code == 0
    assert done.stderr == "meter: note: ignored columns: region\n"


@pytest.mark.parametrize(
    ("lines", "arguments", "fault"),
    [
        (("2026-10-21,m,1,1,$5",), (), "meter: line 2, column cost_usd: '$5' has a currency in it"),
        (RIGHT, ("--tz", "Mars/Olympus"), "meter: unknown time zone"),
        (RIGHT, ("--tolerance", "1%"), "meter: the tolerance is a part"),
        (RIGHT, ("--upstream", "nobody"), "meter: no upstream 'nobody'; there is: 127.0.0.1, upstream"),
        (RIGHT, ("--alias", "x"), "meter: not an alias"),
        (RIGHT, ("--alias", "x=y"), "meter: the file has no model x"),
        ((), (), "meter: the file has no lines"),
        (("9999-12-31,m,1,1,5",), (), "meter: line 2, column day: not a day"),
    ],
)
def test_what_cannot_be_compared(
    data_dir: Path, lines: tuple[str, ...], arguments: tuple[str, ...], fault: str
) -> None:
    """A file or an option that cannot be used is one sentence on standard error and the status 2."""
    done = run(data_dir, lines, *arguments)

    assert done.exit_code == 2
    assert done.stderr.startswith(fault)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_without_a_database_nothing_is_compared(tmp_path: Path) -> None:
    """A difference is status 1, so that a missing database or file is another one."""
    done = run(tmp_path, RIGHT)
    lost = CliRunner().invoke(command, ["reconcile", str(tmp_path / "nowhere.csv")])

    assert (done.exit_code, lost.exit_code) == (2, 2)
    assert "there is no database" in done.stderr


def test_several_upstreams_are_pointed_out(tmp_path: Path) -> None:
    """Where the ledger has events of several upstreams, one is to be named, and then only it counts."""
    database = Database(new_sqlite(tmp_path / "meter.db"))
    both = [
        msgspec.structs.replace(event, upstream=f"u{number}", cost=2_800_000_000)
        for number, event in enumerate(events())
    ]
    ledger.append(database, both, NOON)
    database.dispose()

    done = run(tmp_path, RIGHT)
    one = run(tmp_path, RIGHT[:1], "--upstream", "u0")

    assert "the ledger has events of u0, u1 in these days" in done.stderr
    assert (one.exit_code, one.stderr) == (0, "")
