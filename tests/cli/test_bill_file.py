"""Bills as CSV: what exports look like is read, and what is faulty is named by line and column."""

import pytest

from meter.cli.bill_file import BillFault, parse_aliases, read_bill
from meter.core.reconcile import Billed

HEADER = "day,model,prompt_tokens,completion_tokens,cost_usd"
LINE = "2026-11-01,gpt-4.1,1000,100,0.0042"
READ = Billed(day="2026-11-01", model="gpt-4.1", prompt_tokens=1000, completion_tokens=100, cost=4200000000)


def read(text: str) -> tuple[Billed, ...]:
    """Read a file's lines."""
    return read_bill(text.encode(), {})[0].lines


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{LINE}\n",
        f"{HEADER}\n{LINE}",
        f"{HEADER}\r\n{LINE}\r\n",
        f"\ufeff{HEADER}\r\n{LINE}\r\n",
        f"\ufeff{HEADER}\n{LINE}\n".replace(",", ";"),
        f"{HEADER}\n{LINE}\n".replace(",", "\t"),
        f"{HEADER}\n{LINE}\n".replace(",", "|"),
        f"{HEADER}\n\n{LINE}\n , ,,,\n\n",
        f"{HEADER.upper()}\n{LINE}\n",
        f"{HEADER}\n{LINE}\n".replace("1000", "1000.0").replace(",100,", ",100.0,"),
        f"{HEADER.replace(',', ', ')}\n{LINE.replace(',', ' , ')}\n",
        ",".join(f'"{name}"' for name in HEADER.split(","))
        + "\n"
        + ",".join(f'"{cell}"' for cell in LINE.split(",")),
        "cost_usd,completion_tokens,prompt_tokens,model,day\n0.0042,100,1000,gpt-4.1,2026-11-01\n",
    ],
)
def test_shapes_of_one_file(content: str) -> None:
    """Byte order marks, line ends, delimiters, quotes, blanks, capitals and orders make no difference."""
    assert read(content) == (READ,)


def test_all_columns() -> None:
    """Optional columns are read where they are, an empty cell is not known, and others are named."""
    bill, ignored = read_bill(
        (
            f"{HEADER},cached_tokens,cache_write_tokens,reasoning_tokens,requests,service_tier,team,Note\n"
            f"{LINE},1,2,3,4,flex,x,y\n"
            f"{LINE},,,,,,,\n"
        ).encode(),
        {},
    )

    first, second = bill.lines
    assert (first.cached_tokens, first.cache_write_tokens, first.reasoning_tokens) == (1, 2, 3)
    assert (first.requests, first.service_tier) == (4, "flex")
    assert (second.cached_tokens, second.requests, second.service_tier) == (None, None, "")
    assert ignored == ["team", "note"]
    assert bill.names_tiers
    assert not read_bill(f"{HEADER}\n{LINE}".encode(), {})[0].names_tiers


@pytest.mark.parametrize(
    ("text", "picodollars"),
    [
        ("0", 0),
        ("1", 10**12),
        ("1.5", 15 * 10**11),
        (".5", 5 * 10**11),
        ("+1.", 10**12),
        ("-2.25", -225 * 10**10),
        ("4.2E-05", 42 * 10**6),
        ("0.00007099999999999999", 71 * 10**6),
        ("0.30000000000000004", 3 * 10**11),
        ("1e-999", 0),
    ],
)
def test_amounts(text: str, picodollars: int) -> None:
    """Amounts are decimal, also as spreadsheets and programs write them; credits are negative."""
    assert read(f"{HEADER}\n2026-11-01,m,1,1,{text}")[0].cost == picodollars


@pytest.mark.parametrize(
    ("costs", "decimals"),
    [(["1"], 0), (["1", "0.25"], 2), (["0.001", "2"], 3), (["4.2E-05"], 6), (["1E2"], 0)],
)
def test_how_a_file_writes_amounts(costs: list[str], decimals: int) -> None:
    """The most decimals of any amount say how far the file's amounts go."""
    lines = "\n".join(f"2026-11-01,m,1,1,{cost}" for cost in costs)

    assert read_bill(f"{HEADER}\n{lines}".encode(), {})[0].decimals == decimals


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ('2026-11-01,m,"1,000",1,0', "line 2, column prompt_tokens", "has separators"),
        ("2026-11-01,m,1'000,1,0", "line 2, column prompt_tokens", "has separators"),
        ("2026-11-01,m,1 000,1,0", "line 2, column prompt_tokens", "has separators"),
        ("2026-11-01,m,1_000,1,0", "line 2, column prompt_tokens", "has separators"),
        ("2026-11-01,m,1.000,1,0", "line 2, column prompt_tokens", "has a point"),
        ("2026-11-01,m,1.5,1,0", "line 2, column prompt_tokens", "has a point"),
        ("2026-11-01,m,1,-1,0", "line 2, column completion_tokens", "not a number"),
        ("2026-11-01,m,1,٣,0", "line 2, column completion_tokens", "not a number"),
        ("2026-11-01,m,1,1e3,0", "line 2, column completion_tokens", "not a number"),
        ("2026-11-01,m,1,,0", "line 2, column completion_tokens", "empty"),
        ("2026-11-01,m,1,9999999999999999999,0", "line 2, column completion_tokens", "not a number"),
        ("2026-11-01,m,1,1,$1.20", "line 2, column cost_usd", "has a currency"),
        ("2026-11-01,m,1,1,1.20 USD", "line 2, column cost_usd", "has a currency"),
        ("2026-11-01,m,1,1,€1", "line 2, column cost_usd", "has a currency"),
        ('2026-11-01,m,1,1,"1,234.56"', "line 2, column cost_usd", "has separators"),
        ('2026-11-01,m,1,1,"1,25"', "line 2, column cost_usd", "has separators"),
        ("2026-11-01,m,1,1,nan", "line 2, column cost_usd", "not a number"),
        ("2026-11-01,m,1,1,inf", "line 2, column cost_usd", "not a number"),
        ("2026-11-01,m,1,1,1e99", "line 2, column cost_usd", "not a number"),
        ("2026-11-01,m,1,1," + "1" * 5000, "line 2, column cost_usd", "not a number"),
        ("2026-11-01,m,1,1,1_0", "line 2, column cost_usd", "has separators"),
        ("2026-11-01,m,1,1,", "line 2, column cost_usd", "empty"),
        ("2026-11-31,m,1,1,0", "line 2, column day", "not a day"),
        ("20261101,m,1,1,0", "line 2, column day", "not a day"),
        ("2026-11-01T00:00:00Z,m,1,1,0", "line 2, column day", "not a day"),
        ("11/01/2026,m,1,1,0", "line 2, column day", "not a day"),
        ("Total,,1,1,0", "line 2, column day", "lines of sums"),
        ("2026-11-01,,1,1,0", "line 2, column model", "no model"),
        ("2026-11-01,m,1,1,1,25", "line 2", "6 cells"),
        ("2026-11-01,m,1,1", "line 2", "4 cells"),
        ('2026-11-01,"m,1,1,0', "line 2", "not CSV"),
        ('2026-11-01,"m"x,1,1,0', "line 2", "not CSV"),
        (f"{LINE}\n{LINE}\n2026-11-01,m,x,1,0", "line 4, column prompt_tokens", "not a number"),
        ('2026-11-01,"m\nn",1,1,0\n2026-11-01,m,x,1,0', "line 4, column prompt_tokens", "not a number"),
    ],
)
def test_faults_name_their_place(line: str, where: str, what: str) -> None:
    """A cell that cannot be read is an error that names its line and column, and says what to write."""
    with pytest.raises(BillFault) as fault:
        read(f"{HEADER}\n{line}\n")

    assert str(fault.value).startswith(where)
    assert what in str(fault.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the header lacks day, model"),
        (b"day,model,cost_usd\n", "the header lacks prompt_tokens, completion_tokens"),
        (f"{HEADER}\n".encode(), "no lines below its header"),
        (f"{HEADER},day\n{LINE},x\n".encode(), "has day twice"),
        (f"{HEADER}\n{LINE}\n".encode("utf-16"), "not UTF-8"),
        (f"{HEADER}\n2026-11-01,caf\u00e9,1,1,0\n".encode("latin-1"), "not UTF-8"),
        (b"\x00" * 50, "the header lacks"),
        (f"{HEADER}\n2026-11-01,{'m' * 200_000},1,1,0".encode(), "not CSV"),
    ],
)
def test_files_that_are_no_bills(content: bytes, what: str) -> None:
    """A file without the columns, without lines, or in another encoding is refused in a sentence."""
    with pytest.raises(BillFault, match=what):
        read_bill(content, {})


def test_aliases() -> None:
    """A model of theirs may be given our name for it, and one that the file lacks is a mistake."""
    aliases = parse_aliases(["gpt-4.1 = openai/gpt-4.1"])

    assert read_bill(f"{HEADER}\n{LINE}".encode(), aliases)[0].lines[0].model == "openai/gpt-4.1"
    with pytest.raises(BillFault, match="no model x"):
        read_bill(f"{HEADER}\n{LINE}".encode(), {"x": "y"})
    with pytest.raises(ValueError, match="write THEIRS=OURS"):
        parse_aliases(["x"])
