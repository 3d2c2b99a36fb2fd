"""Taking prices over adds what differs, once, and leaves what is the same alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from meter.app.actions import clock
from meter.app.price_import import Selection, Source, compare, read_file, read_installed, take_over
from meter.core.price_csv import FileFaults
from meter.core.prices import BEGINNING, Price, PriceBook, Rates
from meter.store import audit, prices
from meter.store.database import Database

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


def make(model: str, prompt: int, **fields: object) -> Price:
    """Make a version of a package's list."""
    values = {
        "id": 0,
        "catalog": "openai",
        "model": model,
        "effective_from": BEGINNING,
        "rates": Rates(prompt=prompt),
        "source": "genai-prices 1",
        "created_at": BEGINNING,
    }
    return Price(**values | fields)  # type: ignore[arg-type]


FIRST = [make("a", 1), make("b", 2), make("c", 3), make("c", 4, effective_from=OCTOBER)]
# Another price, a price with a date, a new model, a new tier of a known one; c is gone.
SECOND = [
    make("a", 9),
    make("b", 2),
    make("b", 8, effective_from=OCTOBER),
    make("b", 1, service_tier="flex"),
    make("d", 5),
]


def package(*versions: Price) -> Source:
    """Read a package with these versions."""
    return read_installed(clock.now(), lambda _: [*versions])


def test_the_next_version_of_the_package(database: Database) -> None:
    """What differs is added with its date, or from now on; what is new from the beginning."""
    take_over(database, {}, "somebody", package(*FIRST))
    before = clock.now()

    found = compare(database, {}, package(*SECOND), before)
    added = take_over(database, {}, "somebody", package(*SECOND))

    shown = {(price.model, price.service_tier): price.effective_from for price in added}
    soon = before + timedelta(seconds=5)
    assert shown[("b", "")] == OCTOBER
    assert shown[("d", "")] == BEGINNING
    assert soon <= shown[("a", "")] <= clock.now() + timedelta(seconds=5)
    assert shown[("b", "flex")] == shown[("a", "")]
    assert [change.subject.model for change in found.changed] == ["a", "b"]
    assert [price.model for price in found.gone] == ["c"]
    assert prices.load(database)[-4:] == added
    assert {price.created_by for price in added} == {"somebody"}


def test_twice(database: Database) -> None:
    """Taking the same over again adds nothing, also in the seconds before it counts."""
    for source in (FIRST, SECOND, SECOND, SECOND):
        take_over(database, {}, "somebody", package(*source))

    assert len(prices.load(database)) == len(FIRST) + 4
    assert [entry.target for entry in audit.page(database, limit=9)] == ["3 models", "3 models"]


def test_own_prices_are_not_the_packages(sqlite_database: Database, tmp_path: Path) -> None:
    """What the operator has set is neither gone nor changed when a package is taken over."""
    path = tmp_path / "mine.csv"
    path.write_text("model,prompt_usd_per_mtok\nmine,3\n")
    take_over(sqlite_database, {}, "somebody", read_file(path, Selection(), clock.now()))

    found = compare(sqlite_database, {}, package(*FIRST), clock.now())

    assert found.gone == ()
    assert {change.subject.catalog for change in found.new} == {"openai"}


def test_a_file_over_a_list(sqlite_database: Database, tmp_path: Path) -> None:
    """A file's price for a model that a list has counts from when every process knows it."""
    take_over(sqlite_database, {}, "somebody", package(*FIRST))
    path = tmp_path / "mine.csv"
    path.write_text("model,prompt_usd_per_mtok\nopenai/a,3\n")

    (added,) = take_over(sqlite_database, {}, "somebody", read_file(path, Selection(), clock.now()))

    book = PriceBook(prices.load(sqlite_database))
    instants = (clock.now(), added.effective_from)
    found = [book.find("u", "openai/a", None, None, instant) for instant in instants]
    assert [each.price.rates.prompt for each in found if each is not None] == [1, 3_000_000]
    assert added.source == "mine.csv"


def test_choosing_from_a_file(tmp_path: Path) -> None:
    """A pattern, a prefix to leave off and an upstream say what of a file is taken over, and as what."""
    path = tmp_path / "prices.json"
    entry = {"input_cost_per_token": 1e-06}
    path.write_bytes(msgspec.json.encode({"openrouter/a/b": entry, "openrouter/c": entry, "d": entry}))

    everything = read_file(path, Selection(), clock.now())
    chosen = read_file(path, Selection("*/a/*", "openrouter/", "gateway"), clock.now())

    assert [price.model for price in everything.versions] == ["openrouter/a/b", "openrouter/c", "d"]
    assert [(price.model, price.upstream) for price in chosen.versions] == [("a/b", "gateway")]


@pytest.mark.parametrize(("content", "fault"), [(None, "cannot be read"), (b"\xff", "not UTF-8")])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, fault: str) -> None:
    """A file that is missing, or is no text, is named."""
    path = tmp_path / "prices.csv"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(FileFaults, match=f"prices.csv.*{fault}"):
        read_file(path, Selection(), clock.now())


def test_the_real_package_twice(sqlite_database: Database) -> None:
    """The installed package, taken over into a book that it seeded, changes nothing."""
    source = read_installed(clock.now())
    take_over(sqlite_database, {}, "somebody", source)

    found = compare(sqlite_database, {}, source, clock.now())

    assert (found.new, found.changed, found.gone) == ((), (), ())
    assert found.unchanged > 2_000
