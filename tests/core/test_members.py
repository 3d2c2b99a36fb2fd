"""Members are found where they stand, documents are read exactly, and malformed bytes are refused quickly."""

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.members import Member, compact_json, members, parse_object, storable

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON_VALUES, max_size=6)
WRITERS: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}]


@given(document=OBJECTS, writer=st.sampled_from(WRITERS))
def test_members_stand_where_they_say(document: dict[str, Any], writer: dict[str, Any]) -> None:
    """Each extent holds exactly the value of its key, in the order of the document."""
    data = json.dumps(document, **writer).encode("utf-8", "surrogatepass")

    found = members(data)

    assert [member.key for member in found] == list(document)
    for member in found:
        assert json.loads(data[member.value_start : member.value_end]) == document[member.key]
        assert data[member.start : member.start + 1] == b'"'


def test_duplicates_and_escaped_keys_are_listed() -> None:
    r"""Every member is listed, also with the key of another, and `a` is the key `a`."""
    assert members(b' {"\\u0061" : 1,"a":[{"a":"]"}] } \n') == [
        Member("a", 2, 13, 14),
        Member("a", 15, 19, 30),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"{}x",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b"{a:1}",
        b'{"a":1]',
        b'{"a":[1}',
        b'{"a":"x}',
        b'{"a":["x]}',
        b'{"a":"\\',
        b'{"a',
        b'{,"a":1}',
        b'{"\xff":1}',
        b'{"\\x":1}',
    ],
)
def test_malformed_objects_are_refused(data: bytes) -> None:
    """What is no object at its top level raises `ValueError`."""
    with pytest.raises(ValueError, match=r"."):
        members(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"' + b"\\n" * 1_000_000,
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":[' + b'"",' * 500_000,
        b"{" + b" " * 2_000_000,
        b'{"a"' + b" " * 2_000_000,
    ],
)
def test_malformed_megabytes_are_refused_in_linear_time(data: bytes) -> None:
    """Nothing backtracks: two megabytes of bad JSON take far less than a second or two."""
    started = time.perf_counter()

    with pytest.raises(ValueError, match=r"."):
        members(data)

    assert time.perf_counter() - started < 5


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
