"""`meter prices`: what is typed, what is said, and what is in the book afterwards."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from meter.cli import meter
from meter.core.prices import BEGINNING, LongContext, Price, Rates
from meter.store import prices
from meter.store.database import Database
from tests.databases import new_sqlite

LISTED = Price(
    id=0,
    catalog="anthropic",
    model="claude-sonnet-4",
    effective_from=BEGINNING,
    rates=Rates(prompt=3_000_000, cached=300_000, completion=15_000_000),
    max_output_tokens=64_000,
    source="genai-prices 0.2.3",
    created_at=BEGINNING,
)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data directory with an empty database, which commands find in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ROUTERHUB_API_KEY", "sk-test")
    return tmp_path


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    """Give that database, with one listed price."""
    opened = Database(new_sqlite(data_dir / "meter.db"))
    prices.add(opened, [LISTED])
    yield opened
    opened.dispose()


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(meter, ["prices", *arguments])


def said(*arguments: str) -> str:
    """Run a command that must succeed, and return what it says."""
    done = run(*arguments)
    assert done.exception is None, done.exception
    return done.output


def own(database: Database) -> list[Price]:
    """Return the prices that were set."""
    return [price for price in prices.load(database) if not price.catalog]


def test_a_price_is_set_and_listed(database: Database) -> None:
    """Amounts are USD per million tokens, and what is said says so; the list shows the price."""
    told = said("set", "my-model", "--prompt", "3", "--cached", "0.3", "--completion", "15")
    listed = said("list")

    (price,) = own(database)
    assert price.rates == Rates(prompt=3_000_000, cached=300_000, completion=15_000_000)
    assert "from the beginning on" in told
    assert "USD per million tokens: prompt 3.00, cached 0.30, completion 15.00" in told
    assert "Requests that use cache write, cache write 1h, audio in or audio out stay unpriced." in told
    assert "meter prices reprice --since 1970-01-01" in told
    assert "USD per million tokens" in listed
    for shown in ("my-model", "3.00", "0.30", "15.00", "set"):
        assert shown in listed
    assert "claude" not in listed
    assert "have 1 more models" in listed


def test_every_option(database: Database) -> None:
    """Each option arrives in the version."""
    told = said(
        *("set", "m", "--prompt", "1", "--cached", "2", "--completion", "3", "--cache-write", "4"),
        *("--cache-write-1h", "5", "--input-audio", "6", "--output-audio", "7", "--request", "0.005"),
        *("--above", "200000", "--prompt-above", "8", "--cached-above", "9", "--cache-write-above", "10"),
        *("--completion-above", "11", "--max-output", "12", "--tier", "flex", "--upstream", "gateway"),
        *("--from", "2127-01-01", "--note", "as agreed"),
    )

    (price,) = own(database)
    rates = {"cache_write_1h": 5_000_000, "input_audio": 6_000_000, "output_audio": 7_000_000}
    assert price.rates == Rates(
        prompt=1_000_000,
        cached=2_000_000,
        completion=3_000_000,
        cache_write=4_000_000,
        request=5 * 10**9,
        **rates,
    )
    assert price.long_context == (
        LongContext(
            above_tokens=200_000,
            rates=Rates(
                prompt=8_000_000,
                cached=9_000_000,
                cache_write=10_000_000,
                completion=11_000_000,
                request=5 * 10**9,
                **rates,
            ),
        ),
    )
    assert (price.max_output_tokens, price.service_tier, price.upstream) == (12, "flex", "gateway")
    assert price.effective_from.isoformat() == "2127-01-01T00:00:00+00:00"
    assert price.note == "as agreed"
    assert price.created_by
    assert "tier flex, upstream gateway, from 2127-01-01 on" in told
    assert "prompts above 200000 tokens: prompt 8.00" in told
    assert "no upstream is named 'gateway'" in told
    assert "reprice" not in told
    assert "unpriced" not in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("m", "--prompt", "-1"), "--prompt: '-1' is negative"),
        (("m", "--prompt", "three"), "--prompt: 'three' is no amount in USD per million tokens"),
        (("m", "--prompt", "0.0000001"), "--prompt: '0.0000001' is finer than 0.000001 USD"),
        (("m", "--prompt", "1", "--cache-write-1h", "x"), "--cache-write-1h: 'x' is no amount"),
        (("m", "--prompt", "1", "--request", "x"), "--request: 'x' is no amount in USD per request"),
        (("m",), "--prompt: is missing"),
        (("m", "--completion", "1"), "--prompt: is missing"),
        (("m", "--prompt", "1", "--prompt-above", "2"), "--above: is missing"),
        (("m", "--prompt", "1", "--above", "0"), "--above: must be a number of tokens"),
        (("m", "--prompt", "1", "--max-output", "0"), "--max-output: must be a number of tokens"),
        (("m", "--prompt", "1", "--from", "soon"), "not a date: 'soon'"),
        (("m", "--max-output", "9"), "has no price that could be kept"),
        (("a/*", "--prompt", "1"), "MODEL: 'a/*' would be a pattern"),
        (("", "--prompt", "1"), "MODEL: is missing"),
        (("m", "--prompt", "1", "--tier", "t" * 65), "--tier: must have at most 64"),
    ],
)
def test_what_is_refused(database: Database, arguments: tuple[str, ...], sentence: str) -> None:
    """What cannot be used is refused by the option's name, and the book stays as it is."""
    done = run("set", *arguments)

    assert isinstance(done.exception, ValueError)
    assert sentence in str(done.exception)
    assert own(database) == []


def test_a_price_in_the_past_points_to_rating_anew(database: Database) -> None:
    """What the ledger has is not rated anew by itself, and what is said says how it is."""
    told = said("set", "m", "--prompt", "0", "--from", "2026-11-01")

    assert "meter prices reprice --since 2026-11-01" in told
    assert own(database)[0].rates.prompt == 0


def test_the_list_of_a_name_and_of_a_pattern(database: Database) -> None:
    """A name shows what counts for it; a pattern what it matches; nothing is said to be nothing."""
    said("set", "anthropic/claude-sonnet-4", "--prompt", "2", "--from", "2100-01-01")

    by_name = said("list", "--model", "anthropic/claude-sonnet-4-20250514")
    by_pattern = said("list", "--model", "anthropic/*", "--all")
    later = said("list", "--model", "anthropic/claude-sonnet-4", "--at", "2100-01-01")
    nothing = said("list", "--model", "gpt-4.1")

    assert "64000" in by_name
    assert "Versions that begin later: 1; --all shows them." in by_name
    assert by_pattern.index("own") < by_pattern.index("genai-prices 0.2.3")
    assert later.index("2100-01-01") < later.index("the beginning")
    assert "No price is known for gpt-4.1" in nothing


def test_help_says_the_unit() -> None:
    """The help of each command says what amounts are in."""
    for command in ("list", "set"):
        assert "USD per million tokens" in " ".join(said(command, "--help").split())


CSV = (
    "model,effective_from,prompt_usd_per_mtok,completion_usd_per_mtok\nacme/x,,3,15\nacme/y,2026-12-01,1,2\n"
)


def test_the_difference_is_shown_before_anything_is_added(database: Database, data_dir: Path) -> None:
    """Without a terminal and without --yes, the difference is shown and nothing is changed."""
    path = data_dir / "prices.csv"
    path.write_text(CSV)

    done = run("import", str(path))

    assert isinstance(done.exception, ValueError)
    assert "--yes" in str(done.exception)
    assert "prices.csv: 2 new" in done.output
    assert "USD per million tokens" in done.output
    assert "prompt 3.00, completion 15.00" in done.output
    assert own(database) == []


def test_an_import(database: Database, data_dir: Path) -> None:
    """With --yes what differs is added; the next time only what has changed since, shown as old and new."""
    path = data_dir / "prices.csv"
    path.write_text(CSV)
    first = said("import", "--yes", str(path))
    path.write_text(CSV.replace(",,3,", ",,2.5,"))
    second = said("import", "--yes", str(path))
    third = said("import", str(path))

    assert "Added 2 versions." in first
    assert "prices.csv: 1 changed, 1 unchanged" in second
    assert "prompt 3.00 -> 2.50" in second
    assert "Added 1 version." in second
    assert third == "prices.csv: 2 unchanged\n"
    assert [price.rates.prompt for price in own(database)] == [3_000_000, 1_000_000, 2_500_000]
    assert {price.source for price in own(database)} == {"prices.csv"}


def test_an_import_of_litellms_prices(database: Database, data_dir: Path) -> None:
    """LiteLLM's JSON is known by its name's end, and what is left out is counted."""
    path = data_dir / "model_prices_and_context_window.json"
    path.write_text(
        '{"a/b": {"input_cost_per_token": 3e-06}, "a/c": {"input_cost_per_token": 1e-06}, "d": {}}'
    )

    told = said("import", "--yes", "--model", "a/b", "--strip-prefix", "a/", "--upstream", "near", str(path))

    (price,) = own(database)
    assert (price.model, price.upstream, price.rates.prompt) == ("b", "near", 3_000_000)
    assert "1 new, 1 skipped, not priced by the token" in told


def test_an_import_of_the_package(database: Database) -> None:
    """Without a file the installed package is compared, whose gone models are named."""
    prices.add(database, [msgspec.structs.replace(LISTED, model="claude-forgotten")])

    told = said("import", "--yes")

    assert "new" in told.splitlines()[0]
    assert "more that are new" in told
    assert "Gone from the list, whose last prices go on counting: anthropic/claude-forgotten" in told
    assert said("import").endswith("anthropic/claude-forgotten\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("model,prompt_usd_per_mtok\na,x\nb,-1\n", "line 2, prompt_usd_per_mtok: 'x' is no amount"),
        ("model,prompt_usd_per_mtok\na,x\nb,-1\n", "line 3, prompt_usd_per_mtok: '-1' is negative"),
        ("model,prompt\n", "there is no column 'prompt'"),
    ],
)
def test_a_faulty_file(database: Database, data_dir: Path, content: str, sentence: str) -> None:
    """A file with faults is refused with all of them, and nothing of it is added."""
    path = data_dir / "prices.csv"
    path.write_text(content)

    done = run("import", "--yes", str(path))

    assert isinstance(done.exception, ValueError)
    assert sentence in str(done.exception)
    assert own(database) == []


def test_choosing_needs_a_file(database: Database) -> None:
    """What chooses from a file says so where none is named."""
    assert "name one" in str(run("import", "--model", "a/*").exception)
