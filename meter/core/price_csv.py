"""Prices from a CSV file: one row a version, the unit in every column's name.

    model, upstream, service_tier, effective_from, above_tokens, prompt_usd_per_mtok, cached_usd_per_mtok, ...

A row with `above_tokens` is a step of the version that the row of the same model, upstream, tier and date is.
Everything that is wrong with a file is reported at once, by line and column.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from meter.core.period import parse_instant
from meter.core.price_amounts import FIELDS, AmountError, LongContextAmounts, NewPrice, check_step, price_of
from meter.core.price_changes import UNDATED
from meter.core.prices import Price, tier_of

COLUMNS = (
    "model",
    "upstream",
    "service_tier",
    "effective_from",
    "above_tokens",
    *FIELDS.values(),
    "max_output_tokens",
    "note",
)
_NUMBERS = ("above_tokens", "max_output_tokens")
_OF_STEPS = ("above_tokens", *FIELDS.values())


class FileFaults(ValueError):
    """A file of prices that cannot be imported; `faults` has a sentence for each thing that is wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(["the file cannot be imported, and nothing was changed:", *faults]))
        self.faults = tuple(faults)


class _Row(NamedTuple):
    line: int
    values: Mapping[str, Any]

    @property
    def subject(self) -> tuple[str, str, str, datetime | None]:
        values = self.values
        tier = tier_of(values.get("service_tier", ""))
        return values["model"], values.get("upstream", ""), tier, values.get("effective_from")


def read_csv(text: str, *, source: str, now: datetime) -> list[Price]:
    """Read the versions of a file, those without a date `UNDATED`; raises `FileFaults`."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    faults: list[str] = []
    try:
        rows = list(_rows(reader, faults))
    except csv.Error as fault:
        raise FileFaults([f"line {reader.line_num}: is no CSV: {fault}"]) from None
    found = _versions(rows, source, now, faults)
    if faults:
        raise FileFaults(sorted(faults, key=_line_of))
    return found


def _line_of(fault: str) -> int:
    return int(re.findall(r"\d+", fault)[0])


def _rows(reader: Any, faults: list[str]) -> Iterator[_Row]:
    names = [name.strip() for name in next(reader, [])]
    _check_columns(names)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            faults.append(f"line {reader.line_num}: has {len(cells)} cells, and the first line {len(names)}")
            continue
        row = _row(reader.line_num, dict(zip(names, (cell.strip() for cell in cells), strict=True)), faults)
        if row is not None:
            yield row


def _check_columns(names: list[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    twice = {name for name in names if names.count(name) > 1}
    faults = [f"line 1: there is no column {name!r}; there are: {', '.join(COLUMNS)}" for name in unknown]
    faults += [f"line 1: the column {name!r} is there twice" for name in sorted(twice)]
    faults += [
        f"line 1: the column {name!r} is missing" for name in ("model", FIELDS["prompt"]) if name not in names
    ]
    if len(names) == 1 and ";" in names[0]:
        faults = ["line 1: separate the columns by commas, not by semicolons"]
    if faults:
        raise FileFaults(faults)


def _row(line: int, cells: Mapping[str, str], faults: list[str]) -> _Row | None:
    """Read what is in the cells; empty ones are not given."""
    values: dict[str, Any] = {}
    before = len(faults)
    for name, text in cells.items():
        try:
            if text:
                values[name] = _value(name, text)
        except ValueError as fault:
            faults.append(f"line {line}, {name}: {fault}")
    if "model" not in values:
        faults.append(f"line {line}, model: is missing")
    return _Row(line, values) if len(faults) == before else None


def _value(name: str, text: str) -> object:
    if name == "effective_from":
        return parse_instant(text, UTC)
    if name in _NUMBERS:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"must be a whole number of tokens, not {text!r}")
        return int(text)
    return text


def _versions(rows: list[_Row], source: str, now: datetime, faults: list[str]) -> list[Price]:
    bases: dict[object, _Row] = {}
    steps: dict[object, list[_Row]] = {}
    for row in rows:
        if "above_tokens" in row.values:
            steps.setdefault(row.subject, []).append(row)
        elif row.subject in bases:
            faults.append(f"line {row.line}: the same as line {bases[row.subject].line}")
        else:
            bases[row.subject] = row
    faults += [
        f"line {found[0].line}, above_tokens: there is no row for prompts that are shorter"
        for subject, found in steps.items()
        if subject not in bases
    ]
    made = (_version(row, steps.get(subject, []), source, now, faults) for subject, row in bases.items())
    return [version for version in made if version is not None]


def _version(base: _Row, steps: list[_Row], source: str, now: datetime, faults: list[str]) -> Price | None:
    before = len(faults)
    longer = [_step(row, faults) for row in steps]
    if len(faults) > before:
        return None
    asked = msgspec.convert(dict(base.values) | {"long_context": longer}, NewPrice)
    start = base.values.get("effective_from", UNDATED)
    try:
        return price_of(asked, effective_from=start, source=source, created_at=now)
    except AmountError as fault:
        faults.append(f"line {base.line}, {fault}")
        return None


def _step(row: _Row, faults: list[str]) -> dict[str, Any]:
    """Read a step, and check its amounts here, where its line is known."""
    values = {name: row.values[name] for name in _OF_STEPS if name in row.values}
    try:
        check_step(msgspec.convert(values, LongContextAmounts))
    except AmountError as fault:
        faults.append(f"line {row.line}, {fault}")
    return values
