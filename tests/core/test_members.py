"""Members are found where they stand, documents are read exactly, and malformed bytes are refused quickly."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.members import Member, members
from tests.json_values import OBJECTS

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
    started = time.thread_time()

    with pytest.raises(ValueError, match=r"."):
        members(data)

    assert time.thread_time() - started < 5
