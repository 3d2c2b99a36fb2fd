"""The splice asks for usage and changes nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.splice import include_usage

OPTIONS = st.none() | st.fixed_dictionaries(
    {}, optional={"include_usage": st.sampled_from([None, False, True]), "other": st.integers()}
)
BODIES = st.fixed_dictionaries(
    {"model": st.text(), "stream": st.just(True)},
    optional={"stream_options": OPTIONS, "x": st.recursive(st.text(), st.lists), "y": st.floats(0, 9)},
)
WRITERS: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}]


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{ "a" : 1.0 }\n ', b'{ "a" : 1.0,"stream_options":{"include_usage":true} }\n '),
        (b" {}", b' {"stream_options":{"include_usage":true}}'),
        (b'{"stream_options": null,"a":1}', b'{"stream_options": {"include_usage":true},"a":1}'),
        (b'{"stream_options":{ }}', b'{"stream_options":{"include_usage":true }}'),
        (b'{"stream_options":{"o":[1]}}', b'{"stream_options":{"o":[1],"include_usage":true}}'),
        (b'{"stream_options":{"include_usage":false}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"include_usage" : null }}', b'{"stream_options":{"include_usage" : true }}'),
        (
            b'{"x":{"stream_options":{}},"s":"\\"stream_options\\":null"}',
            b'{"x":{"stream_options":{}},"s":"\\"stream_options\\":null","stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_option\\u0073":{},"stream_options":null}',
            b'{"stream_option\\u0073":{},"stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_the_splice_is_the_smallest(body: bytes, spliced: bytes) -> None:
    """The member is added or replaced in place; order, blanks, numbers and escapes stay."""
    assert include_usage(body, json.loads(body)) == spliced


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream_options":{"include_usage": true}}',
        b'{"stream_options":"yes"}',
        b'{"stream_options":[]}',
        b'{"stream_options":{"include_usage":"yes"}}',
    ],
)
def test_a_body_with_nothing_to_add_is_the_same_object(body: bytes) -> None:
    """A request that asks already, or that is wrong, goes out as it came."""
    assert include_usage(body, json.loads(body)) is body


@given(body=BODIES, writer=st.sampled_from(WRITERS))
def test_only_the_one_member_changes(body: dict[str, Any], writer: dict[str, Any]) -> None:
    """The result is the input with the flag set, and the input is the result without the splice."""
    data = json.dumps(body, **writer).encode("utf-8", "surrogatepass")

    spliced = include_usage(data, body)

    options = (body.get("stream_options") or {}) | {"include_usage": True}
    assert json.loads(spliced) == body | {"stream_options": options}
    head, tail = _common(data, spliced)
    # Nothing was replaced but `null` or `false`, which ends like `true`.
    assert data[len(head) : len(data) - len(tail)] in {b"", b"null", b"fals"}
    assert include_usage(spliced, json.loads(spliced)) is spliced


def _common(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Return the longest common beginning, and the longest common end of the rest."""
    shorter = min(len(one), len(other))
    head = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if one[-1 - n] != other[-1 - n]), rest)
    return one[:head], one[len(one) - tail :]


def test_another_document_is_refused() -> None:
    """What was not decoded from the body raises `ValueError`."""
    with pytest.raises(ValueError, match="another body"):
        include_usage(b"{}", {"stream_options": None})
