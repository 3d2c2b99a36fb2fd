"""Bills as CSV files: every cell is read strictly, and a fault names its line and column."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from meter.core.money import DOLLAR_DIGITS_MAX, round_usd
from meter.core.reconcile import COUNTED, Bill, Billed

REQUIRED = ("day", "model", "prompt_tokens", "completion_tokens", "cost_usd")
OPTIONAL = tuple(name for name in (*COUNTED, "service_tier") if name not in REQUIRED)
DELIMITERS = (",", ";", "\t", "|")
# A bill has a line a day and model; what is larger is something else.
FILE_BYTES_MAX = 100_000_000
# As many tokens as a column of the ledger holds.
COUNT_DIGITS_MAX = 18
# More digits than any program writes.
AMOUNT_CHARACTERS_MAX = 100

_DAY = re.compile(r"2[01]\d\d-\d\d-\d\d")
# A column with empty cells comes out of pandas as `400.0`.
_COUNT = re.compile(r"([0-9]+)(?:\.0)?")
_AMOUNT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_CURRENCIES = re.compile(r"[$€£¥]|USD|EUR", re.IGNORECASE)


class BillFault(ValueError):
    """A file that cannot be read as a bill."""


class _Cell(NamedTuple):
    line: int
    column: str
    text: str

    def fault(self, sentence: str) -> BillFault:
        return BillFault(f"line {self.line}, column {self.column}: {sentence}")


def read_bill(content: bytes, aliases: Mapping[str, str]) -> tuple[Bill, list[str]]:
    """Read a file; returns the bill and the columns that were ignored. `aliases` renames models."""
    text = _decoded(content)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = _header(next(rows, []))
        cells = [_cells(rows.line_num, header, row) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as fault:
        raise BillFault(f"line {rows.line_num}: not CSV: {fault}") from None
    if not cells:
        raise BillFault("the file has no lines below its header")
    _check_aliases(aliases, {row["model"].text for row in cells})
    lines = tuple(_line(row, aliases) for row in cells)
    decimals = max(_decimals(row["cost_usd"].text) for row in cells)
    return Bill(lines, decimals), [name for name in header if name not in {*REQUIRED, *OPTIONAL}]


def _decoded(content: bytes) -> str:
    if len(content) > FILE_BYTES_MAX:
        raise BillFault(f"the file is larger than {FILE_BYTES_MAX} bytes: that is no bill by day and model")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BillFault("the file is not UTF-8 text: save it as CSV in UTF-8") from None


def _delimiter(text: str) -> str:
    """Take the delimiter by which the header has the most columns that we know."""
    header = text.partition("\n")[0]

    def known(delimiter: str) -> int:
        names = {name.strip().strip('"').strip().lower() for name in header.split(delimiter)}
        return len(names & {*REQUIRED, *OPTIONAL})

    return max(DELIMITERS, key=known)


def _header(row: Iterable[str]) -> list[str]:
    header = [name.strip().lower() for name in row]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise BillFault(
            f"line 1: the header lacks {', '.join(missing)}; it needs {', '.join(REQUIRED)} "
            f"and may have {', '.join(OPTIONAL)}"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise BillFault(f"line 1: the header has {', '.join(twice)} twice")
    return header


def _cells(line: int, header: list[str], row: list[str]) -> dict[str, _Cell]:
    if len(row) != len(header):
        raise BillFault(
            f"line {line}: {len(row)} cells, and the header has {len(header)}: "
            "is there a separator within a number or a name?"
        )
    return {
        name: _Cell(line, name, text.strip())
        for name, text in zip(header, row, strict=True)
        if name in {*REQUIRED, *OPTIONAL}
    }


def _line(row: Mapping[str, _Cell], aliases: Mapping[str, str]) -> Billed:
    day, model = _day(row["day"]), _model(row["model"])
    counts: dict[str, Any] = {name: _count(row[name]) for name in ("prompt_tokens", "completion_tokens")}
    for name in OPTIONAL:
        if name in row and name != "service_tier":
            counts[name] = _count(row[name]) if row[name].text else None
    tier = row.get("service_tier")
    return Billed(
        day=day,
        model=aliases.get(model, model),
        cost=_cost(row["cost_usd"]),
        service_tier=None if tier is None else tier.text,
        **counts,
    )


def _day(cell: _Cell) -> str:
    try:
        if _DAY.fullmatch(cell.text):
            return date.fromisoformat(cell.text).isoformat()
    except ValueError:
        pass  # Such as a 31st of November.
    raise cell.fault(f"not a day: {cell.text!r} (write 2026-11-23, and leave lines of sums out)")


def _model(cell: _Cell) -> str:
    if not cell.text:
        raise cell.fault("no model: name the one that this line is about")
    return cell.text


def _count(cell: _Cell) -> int:
    found = _COUNT.fullmatch(cell.text)
    if found and len(found[1]) <= COUNT_DIGITS_MAX:
        return int(found[1])
    raise cell.fault(_what_is_wrong(cell.text, "a whole number such as 12345", float_allowed=False))


def _cost(cell: _Cell) -> int:
    if len(cell.text) <= AMOUNT_CHARACTERS_MAX and _AMOUNT.fullmatch(cell.text):
        amount = Decimal(cell.text)
        if amount.adjusted() <= DOLLAR_DIGITS_MAX:
            return round_usd(amount)
    raise cell.fault(_what_is_wrong(cell.text, "an amount in USD such as 1234.56", float_allowed=True))


def _what_is_wrong(text: str, wanted: str, *, float_allowed: bool) -> str:
    if not text:
        return f"empty: write {wanted}, or 0"
    if _CURRENCIES.search(text):
        return f"{text!r} has a currency in it: write {wanted}"
    if re.search(r"[0-9][,'\s_][0-9]", text):
        return f"{text!r} has separators in it: write {wanted}, with a point for decimals and nothing else"
    if not float_allowed and "." in text:
        return f"{text!r} has a point in it: write {wanted}, without separators"
    return f"not a number that can be used: {text!r} (write {wanted})"


def _decimals(text: str) -> int:
    exponent = Decimal(text).as_tuple().exponent
    return max(0, -int(exponent))


def parse_aliases(entries: Iterable[str]) -> dict[str, str]:
    """Read `THEIRS=OURS` entries; raises `ValueError`."""
    found: dict[str, str] = {}
    for entry in entries:
        theirs, _, ours = (part.strip() for part in entry.partition("="))
        if not theirs or not ours:
            raise ValueError(f"not an alias: {entry!r} (write THEIRS=OURS)")
        found[theirs] = ours
    return found


def _check_aliases(aliases: Mapping[str, str], models: set[str]) -> None:
    unknown = sorted(aliases.keys() - models)
    if unknown:
        raise BillFault(f"the file has no model {', '.join(unknown)}, which --alias renames")
