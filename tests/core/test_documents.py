"""Documents are read leniently and exactly, and what is kept of them is bounded."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from meter.core.documents import compact_json, parse_object, storable
from tests.json_values import OBJECTS


def test_numbers_are_read_exactly() -> None:
    """Fractions keep their digits, integers of any size are integers."""
    assert parse_object(b'{"a":0.1000,"b":1e30,"c":99999999999999999999}') == {
        "a": Decimal("0.1000"),
        "b": Decimal("1e30"),
        "c": 99999999999999999999,
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"a":Infinity}', {"a": float("inf")}),
        (b"[1]", None),
        (b"", None),
        (b'{"a":', None),
        (b'{"a":' + b"9" * 5000 + b"}", None),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"a":NaN,"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
def test_documents_are_read_leniently(data: bytes, expected: object) -> None:
    """What real upstreams send is read, and what cannot be read is `None`, never an exception."""
    assert parse_object(data) == expected


@given(document=OBJECTS)
def test_what_is_read_is_what_was_written(document: dict[str, Any]) -> None:
    """Reading agrees with the standard library's parser on every document, numbers exactly."""
    data = json.dumps(document).encode()

    assert parse_object(data) == json.loads(data, parse_float=Decimal)


def test_compact_json_is_bounded_and_valid() -> None:
    """Numbers keep their digits, what JSON has not becomes null, and too long becomes `None`."""
    value = {"a": Decimal("1.50"), "b": float("nan"), "c": Decimal("NaN"), "d": 2**80, "\ud800": [None, True]}

    assert compact_json(value, 100) == f'{{"a":1.50,"b":null,"c":null,"d":{2**80},"\ufffd":[null,true]}}'
    assert compact_json(value, 20) is None


def test_compact_json_gives_up_on_depth() -> None:
    """A value nested beyond the stack is not written."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]

    assert compact_json(value, 10**9) is None


def test_storable_text_is_short_and_valid() -> None:
    """Lone surrogates and NUL are replaced, and the length is bounded."""
    assert storable("a\ud800\0é" + "x" * 1000) == "a\ufffd\ufffdé" + "x" * 252
