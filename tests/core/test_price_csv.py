"""Prices are read from CSV files, and everything that is wrong with one is told at once."""

from datetime import UTC, datetime

import pytest

from meter.core.price_changes import UNDATED
from meter.core.price_csv import COLUMNS, FileFaults, read_csv
from meter.core.prices import LongContext, Price, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HEAD = "model,effective_from,above_tokens,prompt_usd_per_mtok,completion_usd_per_mtok\n"


def read(text: str) -> list[Price]:
    """Read a file."""
    return read_csv(text, source="prices.csv", now=NOW)


def faults(text: str) -> tuple[str, ...]:
    """Read a file that is wrong."""
    with pytest.raises(FileFaults) as refusal:
        read(text)
    return refusal.value.faults


def test_a_whole_file() -> None:
    """Each column arrives where it belongs; rows with a step belong to their version, in any order."""
    text = (
        f"{','.join(COLUMNS)}\n"
        'm,gateway,flex,2026-12-01,200000,6,,,,,12,,,,"over, long"\n'
        "m,gateway,flex,2026-12-01,,3,0.3,3.75,6,40,15,80,0.005,64000,as agreed\n"
        "\n"
        "n,,default,,,0,,,,,,,,,\n"
    )

    first, second = read(text)

    rates = {
        "cached": 300_000,
        "cache_write": 3_750_000,
        "cache_write_1h": 6_000_000,
        "input_audio": 40_000_000,
        "output_audio": 80_000_000,
        "request": 5 * 10**9,
    }
    assert first == Price(
        id=0,
        catalog="",
        upstream="gateway",
        model="m",
        service_tier="flex",
        effective_from=datetime(2026, 12, 1, tzinfo=UTC),
        rates=Rates(prompt=3_000_000, completion=15_000_000, **rates),
        long_context=(
            LongContext(above_tokens=200_000, rates=Rates(prompt=6_000_000, completion=12_000_000, **rates)),
        ),
        max_output_tokens=64_000,
        source="prices.csv",
        created_at=NOW,
        note="as agreed",
    )
    assert (second.model, second.service_tier, second.effective_from) == ("n", "", UNDATED)
    assert second.rates == Rates(prompt=0)


def test_what_spreadsheets_write() -> None:
    """A mark at the beginning, line ends of another system and spaces around cells do no harm."""
    (price,) = read(f"\ufeff{HEAD} m , 2026-12-01T00:00:00+01:00 ,, 3 , 4 \n".replace("\n", "\r\n"))

    assert (price.model, price.rates.prompt) == ("m", 3_000_000)
    assert price.effective_from == datetime(2026, 11, 30, 23, tzinfo=UTC)


def test_every_fault_at_once() -> None:
    """Each faulty row is told by its line and column, in the order of the file."""
    rows = (
        "a,soon,,3,4\n"
        ",2026-12-01,,x,4\n"
        "b,,,-3,4\n"
        "c,,12x,3,4\n"
        "d,,100,3,4\n"
        "e,,,3,4,5\n"
        "f,,,3,4\n"
        "f,,,5,4\n"
        "f,,9,y,4\n"
        "g,,,,4\n"
        "h*,,,1,0.0000001\n"
    )

    told = faults(HEAD + rows)

    assert [fault.split(":")[0] for fault in told] == [
        "line 2, effective_from",
        "line 3, model",
        "line 4, prompt_usd_per_mtok",
        "line 5, above_tokens",
        "line 6, above_tokens",
        "line 7",
        "line 9",
        "line 10, prompt_usd_per_mtok",
        "line 11, prompt_usd_per_mtok",
        "line 12, model",
    ]
    assert "the same as line 8" in told[6]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the column 'model' is missing"),
        ("model\nm\n", "the column 'prompt_usd_per_mtok' is missing"),
        ("model,prompt\nm,3\n", "there is no column 'prompt'; there are: model,"),
        ("model,model,prompt_usd_per_mtok\nm,m,3\n", "'model' is there twice"),
        ("model;prompt_usd_per_mtok\nm;3\n", "by commas, not by semicolons"),
        ('model,prompt_usd_per_mtok\n"m,3\n', "is no CSV"),
        (HEAD + "m,,99999999999,3,4\n", "above_tokens"),
    ],
)
def test_files_that_are_none(text: str, fault: str) -> None:
    """A file with other columns, or that is no CSV, is told from one with faulty rows."""
    assert fault in "\n".join(faults(text))


def test_an_empty_file() -> None:
    """A file with nothing but names has no prices."""
    assert read(HEAD) == []
