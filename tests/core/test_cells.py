"""Cells of CSV files hold what was written, and nothing that a spreadsheet runs."""

import csv

import pytest

from meter.core.cells import as_text, csv_line, printable


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\uff1dx", "\uff0bx", "\uff0dx", "\uff20x"]
)
def test_no_text_is_a_formula(text: str) -> None:
    """What a spreadsheet would run is led by an apostrophe."""
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=b", "1", "'=x", " =x", "anthropic/claude"])
def test_other_texts_stay(text: str) -> None:
    """Everything else is as it was."""
    assert as_text(text) == text


def test_a_line_can_be_read_again() -> None:
    """Commas, quotes and line ends are kept; nothing is an empty cell; negative numbers are numbers."""
    line = csv_line(['a,"b"\n', None, -5, "-0.5"])

    assert line == '"a,""b""\n",,-5,-0.5\r\n'
    assert next(csv.reader([line])) == ['a,"b"\n', "", "-5", "-0.5"]


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[31mb\n", "a\\x1b[31mb\\n"), ("é ☃", "é ☃"), ("\u202ex", "\\u202ex")]
)
def test_no_text_moves_the_cursor(text: str, shown: str) -> None:
    """What a terminal would act on is shown as it is written in a program."""
    assert printable(text) == shown
