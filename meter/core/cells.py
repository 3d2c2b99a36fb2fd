"""Cells of tables: text that others have written, made harmless for who opens it; and lines of CSV."""

import csv
import io
from collections.abc import Iterable

# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(value: str) -> str:
    """Return a text that others have written so that it moves no cursor and colours no terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in value)


def as_text(value: str) -> str:
    """Return a text that others have written so that no spreadsheet takes it for a formula."""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def csv_line(cells: Iterable[object]) -> str:
    """Write a line; `None` is an empty cell. Texts of others go through `as_text` first, numbers don't."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
